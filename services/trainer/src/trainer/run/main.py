"""What a training process does: reads `run.json`, trains, and says how it goes.

It prints one report a line (see `trainer.run.reports`) and saves a
checkpoint when SIGTERM comes. `trainer.run.fork_server` forks it.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import FrameType

from chassis.exhaustion import Exhausted, exhaustion_named
from trainer.run.config import EXIT_FAILED_FOR_GOOD, EXIT_STOPPED, FailedForGood, RunConfig, Stopped
from trainer.run.reports import Report, RunFailed

ENVIRONMENT = {
    # OpenMP threads spin at barriers, by default so long that a run is up to six times slower when other processes want
    # the cores; not spinning at all costs half the speed when none do.
    "GOMP_SPINCOUNT": "3000",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Asking CUDA itself whether it is there would spoil it for processes that are forked afterwards.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
"""What must stand in the environment before torch and transformers are loaded."""


def train(folder: Path) -> int:
    """Execute the run in the folder; SIGTERM stops it.

    Returns:
        The exit code: 0 when the adapter is published, `EXIT_STOPPED` after SIGTERM, `EXIT_FAILED_FOR_GOOD` when
        another attempt would fail in the same way, that of `Exhausted` when the machine is to blame; any other end may
        be tried again.
    """
    from trainer.run.recipe import LoraRecipe

    stop_requested = False

    def request_stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stop_requested
        stop_requested = True

    def emit(report: Report) -> None:
        print(json.dumps(report.model_dump()), flush=True)

    signal.signal(signal.SIGTERM, request_stop)
    try:
        with exhaustion_named():
            LoraRecipe(folder, RunConfig.read(folder / "run.json"), emit, lambda: stop_requested).execute()
    except Stopped:
        return EXIT_STOPPED
    except FailedForGood as error:
        emit(RunFailed(code=error.code, message=str(error), permanent=True))
        return EXIT_FAILED_FOR_GOOD
    except Exhausted as error:
        return error.exit_code
    except Exception as error:  # the boundary of the process: the parent decides about another attempt
        emit(RunFailed(code="training_crashed", message=f"{type(error).__name__}: {error}", permanent=False))
        raise
    return 0
