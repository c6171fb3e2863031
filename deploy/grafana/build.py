"""Writes the dashboards as JSON: `python -m deploy.grafana.build`."""

import json
from pathlib import Path

import typer
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.cost import cost
from deploy.grafana.operation import operation

FOLDER = Path(__file__).parent / "dashboards"


def documents() -> dict[str, str]:
    """The text of each dashboard by the name of its file."""
    boards = {"operation.json": operation(), "cost.json": cost()}
    return {name: json.dumps(board, cls=JSONEncoder, indent=1, sort_keys=True) + "\n" for name, board in boards.items()}


def main() -> None:
    """Writes the dashboards to deploy/grafana/dashboards, over what was there."""
    for name, text in documents().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    typer.run(main)
