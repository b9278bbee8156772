"""Where the review is: its page, on this machine only, and the log of what people judged."""

from pathlib import Path

HOST, PORT = "127.0.0.1", 4290


def address(port: int = PORT) -> str:
    return f"http://{HOST}:{port}"


def log_path(profile: str) -> Path:
    return Path("reviews", profile, "log.jsonl")
