"""`python -m aibridge` is the `aibridge` command."""

from aibridge.cli import main

main(prog_name="aibridge")
