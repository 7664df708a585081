"""Evaluates a checkpoint: COCO AP and AR, oLRP with its components, and LRP-optimal thresholds.

python eval.py --ckpt runs/r50_alrp/checkpoints/best.pt --split val --json metrics.json --detections detections.json
python eval.py --ckpt runs/mine/checkpoints/best.pt --report report data.root=datasets/mine
"""

import logging
import os

from engine.run.cli import ArgumentParser, log_to_console, run_process, user_errors

log = logging.getLogger(__name__)


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, metavar="FILE", help="checkpoint; its configuration is inside")
    parser.add_argument("--split", default="val", help="val, test, or the literal name of a split (default: val)")
    parser.add_argument("--json", metavar="OUT", help="write the metrics, per class included")
    parser.add_argument("--detections", metavar="OUT", help="write a COCO results file")
    parser.add_argument(
        "--report", metavar="DIR", help="write an HTML page and PNGs: tables, curves, confusion, best and worst images"
    )
    parser.add_argument("--inside-only", action="store_true", help="refuse images outside of data.root")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config values, such as data.root=PATH")
    args = parser.parse_intermixed_args()

    from data.counts import counted
    from data.output_folder import refuse_inputs, require_writable
    from engine.diagnosis.generalisation import verdict_of
    from engine.evaluation.evaluator import evaluate
    from engine.metrics.report import format_report, write_json
    from engine.reporting.evaluation_report import PAGE, check_report_folder, write_report
    from engine.run.checkpoint import load_checkpoint
    from engine.run.config import ConfigError, parse_config
    from engine.run.datasets import evaluation_set
    from engine.run.distributed import join_processes
    from engine.run.load import detector_from_state
    from engine.run.resume import shown_classes
    from engine.run.shared_memory import require_shared_memory

    quiet = int(os.environ.get("LOCAL_RANK", 0)) != 0
    log_to_console(is_main=int(os.environ.get("RANK", 0)) == 0)
    with user_errors(quiet):
        state = load_checkpoint(args.ckpt)
        config = parse_config(state["config"], args.ckpt, args.overrides + ["data.inside_only=true"] * args.inside_only)
    with user_errors(quiet), join_processes(config.run) as processes, user_errors(processes=processes):
        dataset = evaluation_set(config, args.split)
        if dataset.class_names != list(state["classes"]):
            raise ConfigError(
                f"{args.ckpt}: trained on {shown_classes(state['classes'])}, and {dataset.annotation_file} has "
                f"{shown_classes(dataset.class_names)}; evaluate it on data with the classes it was trained on"
            )
        if not dataset.has_annotations and not args.detections:
            raise ConfigError(
                f"{dataset.annotation_file}: no annotations, so no metrics; write the detections with --detections OUT"
            )
        if not dataset.has_annotations and (args.json or args.report):
            log.warning("%s: no annotations, so nothing for --json or --report to write", dataset.annotation_file)
        inputs = [args.ckpt, dataset.annotation_file, *map(dataset.path, range(len(dataset)))]
        outputs = [args.json, args.detections]
        refuse_inputs(outputs, inputs)
        if args.report:
            check_report_folder(args.report, inputs)
            outputs.append(os.path.join(args.report, PAGE))
        if processes.is_main:
            require_writable(outputs)
        require_shared_memory(config, None, dataset)
        detector, info = detector_from_state(state, args.ckpt, config, processes.device)
        result = evaluate(detector, dataset, config, processes)
        if not processes.is_main:
            return 0
        if args.detections:
            write_json(args.detections, result.detections)
        if result.metrics is None:
            print(f"{dataset.annotation_file}: no annotations, so {len(result.detections)} detections and no metrics")
            return 0
        try:
            if args.json:
                write_json(args.json, result.metrics)
            if args.report:
                facts = [
                    f"epoch {info.epoch}, step {info.step}",
                    f"{dataset.annotation_file} ({counted(len(dataset), 'image')})",
                    counted(len(result.detections), "detection"),
                ]
                verdict = verdict_of(state, config)
                page = write_report(args.report, str(args.ckpt), facts, result, dataset, config, inputs, verdict)
        finally:  # where a file fails, the numbers are not lost
            print(format_report(result.metrics, f"{args.ckpt} (epoch {info.epoch}, step {info.step}) on {args.split}"))
        if args.report:
            print(f"report: {page}")
    return 0


if __name__ == "__main__":
    run_process(main)
