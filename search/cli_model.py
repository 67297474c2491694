"""After a search: the honest winner, the report, and the model to use."""

import typer

app = typer.Typer()
