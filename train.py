"""Trains a detector from a YAML experiment.

Checks everything first on a few steps:
    python train.py --config configs/quickstart.yaml --dry-run
One process, with two keys of the configuration set here:
    python train.py --config configs/r50_alrp.yaml data.root=datasets/coco data.batch_size=8
Continues what was stopped, by Ctrl-C, a scheduler or a crash, with its own configuration:
    python train.py --resume runs/r50_alrp
Eight GPUs of one host:
    torchrun --nproc-per-node 8 train.py --config configs/r50_alrp.yaml
"""

import os
from contextlib import nullcontext

from engine.run.cli import ArgumentParser, log_to_console, run_process, user_errors


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config", metavar="FILE", help="experiment, such as configs/r50_alrp.yaml")
    parser.add_argument(
        "--resume",
        metavar="auto|PATH",
        help="with --config: continue from last.pt, or from this checkpoint; without: the folder of the run",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    parser.add_argument(
        "--dry-run", action="store_true", help="try a few steps and print the plan; makes no run folder"
    )
    parser.add_argument("--quiet", action="store_true", help="print only warnings, errors and what was asked for")
    parser.add_argument("--inside-only", action="store_true", help="refuse images outside of data.root")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config values, such as optimizer.lr=0.004")
    args = parser.parse_intermixed_args()
    if args.resume and args.overwrite:
        parser.error("--resume continues a run and --overwrite replaces it: give one of them")
    if args.config is None and args.resume in (None, "auto"):
        parser.error("give --config FILE, or --resume RUN_FOLDER to continue a run with its own configuration")

    from engine.run.config import load_config
    from engine.run.datasets import prepare_data
    from engine.run.distributed import join_processes
    from engine.run.log_file import hold_lines
    from engine.run.old_formats import former_defaults
    from engine.run.resume_command import stored_config
    from engine.run.run_folder import RunFolder
    from engine.run.run_lock import RunLock
    from engine.training.dry_run import dry_run
    from engine.training.trainer import Trainer

    quiet = int(os.environ.get("LOCAL_RANK", 0)) != 0  # until training starts every process of a host fails alike
    log_to_console(is_main=int(os.environ.get("RANK", 0)) == 0, quiet=args.quiet)
    hold_lines()
    with user_errors(quiet):
        overrides = args.overrides + ["data.inside_only=true"] * args.inside_only
        config = load_config(args.config, overrides) if args.config else stored_config(args.resume, overrides)
        folder = RunFolder(config)
        writes = int(os.environ.get("RANK", 0)) == 0 and not args.dry_run
    with user_errors(quiet), RunLock(folder.path) if writes else nullcontext():  # from before the checkpoint is read
        restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
        state = None
        if args.resume or not args.dry_run:
            state = folder.find_checkpoint(args.resume if args.config else "auto", args.overwrite, restarted, writes)
        if state is not None and args.config:
            config = load_config(args.config, overrides, below=former_defaults(state["config"]))
        with join_processes(config.run) as processes, user_errors(processes=processes):
            if args.config:  # a stored configuration may not say where files go
                prepare_data(config, processes)
            trainer = Trainer(config, processes, folder, state)
            del state  # the trainer has its tensors; it would be held as long as training takes
            if args.dry_run:
                plan = dry_run(trainer)
                if processes.is_main:
                    print(plan)
                return 0
            if trainer.finished:
                if processes.is_main:
                    print(f"{folder.path} is finished: {trainer.step} steps done, nothing to do")
                return 0
            return trainer.fit()


if __name__ == "__main__":
    run_process(main)
