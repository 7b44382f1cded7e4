"""`python -m irlhf`, so that launchers such as torchrun can start it."""

from irlhf.cli import main

main()
