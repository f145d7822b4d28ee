"""For a process that has this folder in its PYTHONPATH: Ctrl-C as soon as a run has its folder and its config."""

import os
import signal
import sys
import threading
import time


def stop() -> None:
    while "mnist_exp.training.checkpoint" not in sys.modules:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


threading.Thread(target=stop, daemon=True).start()
