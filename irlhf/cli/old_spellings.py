"""Options of earlier versions, and how they are spelled now."""

_ROUNDS = ("--prompts", "--samples", "--keep", "--replay", "--max-tokens")

SPELLINGS = {
    "finetune": {
        "--objective reward": "reward-model",
        "--half": "reward-model --half",
        "--rounds": "rounds",
        **{option: f"rounds {option}" for option in _ROUNDS},
        "--ask": "rounds --request",
        "--watch": "rounds --eval-prompts",
        "--cancel": "jobs cancel POLICY",
        "--again": "jobs resubmit POLICY",
        "--job": "jobs adopt POLICY ID",
        "--served-name": "jobs deployed POLICY NAME",
        "--extra-body": "finetune --host FILE, with the keys under extra_body in FILE",
        "--merge": "finetune without --no-merge",
        "--layout": "finetune without --layout; rows share their prompt automatically where that saves time",
        "--like": "finetune --keep-scales-of",
        "--baseline untouched": "finetune --baseline prompted",
        "--contrast-weight": "finetune --contrast weight=W",
        "--alternatives": "finetune --contrast alternatives=N",
        "--one-reward": "finetune --contrast one-reward=SHARE",
        "--whole-targets": "finetune --contrast whole-targets=SHARE",
    },
    "sample": {
        "--pick": "sample --mix-from",
        "--raw": "sample --no-clamp",
        "--spoof": "sample --injection",
        "--engine": "sample --executor",
    },
    "score": {"--engine": "score --executor"},
}


def current_spelling(command: str, old: str) -> str:
    """Return what to write today in place of an old spelling, behind `irlhf`; empty where it is none."""
    return SPELLINGS.get(command, {}).get(old, "")
