"""`python -m actors.cli`."""

from actors.cli.main import main

main()
