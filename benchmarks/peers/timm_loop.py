"""Plain KD with timm's parts in the order of its training script: THREADS WORKERS EPOCHS BATCH SIDE.

It saves every epoch, as that script does.
"""

# ruff: noqa: E402
import sys

import torch

from edgestill.pipeline.torchvision_compat import repair

repair()
import timm
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import LogitDistillationTask
from timm.utils import AverageMeter, CheckpointSaver


def main(threads: int, workers: int, epochs: int, batch_size: int, side: int) -> None:
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    student = timm.create_model("resnet18", num_classes=10)
    teacher = timm.create_model("resnet34", num_classes=10)
    teacher.load_state_dict(torch.load("teacher.pt", weights_only=True))
    task = LogitDistillationTask(
        student, teacher, torch.nn.CrossEntropyLoss(), task_loss_weight=0.5, temperature=4.0, device=device
    )
    settings = {"input_size": (3, side, side), "batch_size": batch_size, "num_workers": workers}
    settings |= {"use_prefetcher": False, "device": device, "persistent_workers": workers > 0}
    train = create_loader(
        create_dataset("", root="images", split="train", is_training=True), is_training=True, scale=(0.25, 1.0),
        color_jitter=0.0, interpolation="bilinear", **settings,
    )  # fmt: skip
    validation = create_loader(create_dataset("", root="images", split="validation"), is_training=False, **settings)
    optimizer = create_optimizer_v2(student, opt="sgd", lr=0.01, weight_decay=5e-4)
    scheduler, _ = create_scheduler_v2(optimizer, num_epochs=epochs, updates_per_epoch=len(train))
    saver = CheckpointSaver(student, optimizer)
    for epoch in range(epochs):
        task.train()
        losses = AverageMeter()
        for inputs, targets in train:
            result = task(inputs, targets)
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
            losses.update(result["loss"].item(), len(inputs))
        scheduler.step(epoch + 1)
        student.eval()
        right = 0
        with torch.inference_mode():
            for inputs, targets in validation:
                right += int((student(inputs).argmax(1) == targets).sum())
        saver.save_checkpoint(epoch, metric=right)
        print(f"epoch {epoch} is over: {losses.avg:.3f}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:6]))
