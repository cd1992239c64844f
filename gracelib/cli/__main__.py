"""`python -m gracelib.cli`: the same commands where no script is installed (`accelerate launch -m gracelib.cli`)."""

from gracelib.cli.app import app

app()
