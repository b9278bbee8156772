"""`python -m flows.deploy`: offer the flows on the server in PREFECT_API_URL and run what is asked of them, here."""

import logging
import os
import sys

from flows import environment, graph, turn
from iy.errors import UserError


def main() -> None:
    from prefect import serve
    from prefect.client.orchestration import get_client
    from prefect.types.entrypoint import EntrypointType

    from flows import pipeline, unfinished

    if "PREFECT_API_URL" not in os.environ:
        raise UserError(
            "PREFECT_API_URL names no server: start one with `make ui`, or export the address of yours (http://host:4200/api)"
        )
    logging.getLogger("prefect.flow_runs.runner").setLevel(logging.INFO)
    if environment.shared_server():
        with get_client(sync_client=True) as client:
            turn.limit_training(client)
    unfinished.tell()
    flows = [getattr(pipeline, name) for name in ("pipeline", *graph.names())]
    # Flows are found again by module, in the folder that this runs in: flow runs start there.
    serve(
        *(
            one.to_deployment(
                name=one.name, description=one.description, tags=["iy"], entrypoint_type=EntrypointType.MODULE_PATH
            )
            for one in flows
        ),
        print_starting_message=False,
        pause_on_shutdown=False,
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
