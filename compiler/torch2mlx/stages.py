"""The stages of a compile, by the names that `--dump` takes; on its own, so that `--help` stays quick."""

STAGES = (
    "capture",
    "passes",
    "lower",
    "layout",
    "outline",
    "emit",
    "weights",
    "verify",
)
