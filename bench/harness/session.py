# SPDX-License-Identifier: Apache-2.0
"""What bench/run and bench/cost share as programs: options, messages, and leaving nothing behind."""

import os
import shutil
import signal
import sys

from harness.build import ROOT
from harness.proc import BenchError


def say(text):
    """Progress and problems go to stderr; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def add_build_options(parser):
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), help="the build folder")
    parser.add_argument("--bin", help="folder of tunnel-server and tunnel-client (BUILD/bin)")


def resolve_build_options(args):
    args.build = os.path.abspath(args.build)
    args.bin = os.path.abspath(args.bin or os.path.join(args.build, "bin"))


def _on_terminate(signum, _frame):
    raise SystemExit(128 + signum)


def run_in_folder(name, run, args, folder):
    """Calls run(args, folder), removes the folder however that ends, and returns the exit status."""
    signal.signal(signal.SIGTERM, _on_terminate)
    signal.signal(signal.SIGHUP, _on_terminate)
    try:
        return run(args, folder)
    except BenchError as error:
        say(f"{name}: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
