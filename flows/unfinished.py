"""Flow runs whose process was killed: Prefect, which hears no more of them, would show them as Running for ever.

Each carries a tag that names its process; whoever comes next looks whether that still works, and tells Prefect.
"""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.runtime import flow_run
from prefect.states import Crashed

from flows import orphans

ENDED = "the process of this run was killed; run the same again and it continues"
UNFINISHED = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}


def sign() -> None:
    """Give the run that works in this process its tag, where whoever started it did not."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(flow_run.id), tags={*flow_run.tags, orphans.tag()})


def tell() -> None:
    """Mark as Crashed the runs of this machine that ended without a word, in the Prefect server in use."""
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(UNFINISHED)):
            if any(orphans.ended(one) for one in run.tags):
                client.set_flow_run_state(run.id, Crashed(message=ENDED), force=True)
