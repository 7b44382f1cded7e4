"""`python -m irlhf`, so that launchers such as torchrun can start it."""

from irlhf.cli.app import main

main()
