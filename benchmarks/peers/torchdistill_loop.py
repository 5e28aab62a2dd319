"""Plain KD by torchdistill's distillation box, as its example script trains with it: THREADS WORKERS EPOCHS …

It reads kd.yaml, which epoch.py writes, so only the number of threads counts here. It saves an epoch that is better
than those before it, as that script does.
"""

# ruff: noqa: E402
import sys

import torch

from edgestill.pipeline.torchvision_compat import repair

repair()
from torchdistill.common import yaml_util
from torchdistill.common.main_util import save_ckpt
from torchdistill.core.distillation import get_distillation_box
from torchdistill.models.official import get_image_classification_model


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    config = yaml_util.load_yaml_file("kd.yaml")
    models = config["models"]
    teacher, student = (get_image_classification_model(models[f"{name}_model"]) for name in ("teacher", "student"))
    teacher.load_state_dict(torch.load("teacher.pt", weights_only=True))
    box = get_distillation_box(teacher, student, config["datasets"], config["train"], device, None, False, 1)
    best = -1
    for epoch in range(box.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        for inputs, targets, extra in box.train_data_loader:
            loss = box.forward_process(inputs.to(device), targets.to(device), extra)
            box.post_forward_process(loss=loss)
            loss.item()
        student.eval()
        right = 0
        with torch.inference_mode():
            for inputs, targets in box.val_data_loader:
                right += int((student(inputs).argmax(1) == targets).sum())
        if right > best:
            best = right
            save_ckpt(student, box.optimizer, box.lr_scheduler, best, None, "student.pt")
        box.post_epoch_process()
        print(f"epoch {epoch} is over", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
