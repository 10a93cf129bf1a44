"""Each tool's print, in lines written here: the rows of the train loss, and what lies beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from stresstest.logs.files import LogFile
from stresstest.logs.readers.text import Text

NAN = float("nan")


@dataclass(frozen=True)
class Case:
    """What a tool prints, and what must be read of it. rows: (step, loss); within: (epoch, batch) of each row."""

    tool: str
    text: str
    key: str
    rows: tuple[tuple[float, float], ...]
    beside: dict[str, tuple[float, ...]] = field(default_factory=dict)
    within: tuple[tuple[float, float], ...] = ()
    planned: int | None = None


CASES = (
    Case(
        "nanoGPT",
        "step 0: train loss 4.3, val loss 4.4\n"
        "iter 0: loss 6.125, time 900.10ms, mfu -100.00%\n"
        "iter 10: loss 5.25, time 31.20ms, mfu 17.20%\n"
        "saving checkpoint to out\n"
        "step 20: train loss 3.5, val loss 3.6\n"
        "iter 20: loss 4.5, time 950.00ms, mfu 15.90%\n",
        "loss",
        ((0, 6.125), (10, 5.25), (20, 4.5)),
        {"val loss": (4.4, 3.6), "train loss": (4.3, 3.5)},
    ),
    Case(
        "build-nanogpt log.txt",
        "0 val 10.9500\n0 hella 0.2500\n0 train 10.940000\n1 train 9.500000\n2 train nan\n2 val 9.2000\n",
        "train loss",
        ((0, 10.94), (1, 9.5), (2, NAN)),
        {"val loss": (10.95, 9.2)},
    ),
    Case(
        "modded-nanogpt",
        "import os\n        loss = 0.0\nlr : float = 3.6e-4\nnum_iterations : int = 6200\n====\n"
        "step:0/3 val_loss:10.95 train_time:0ms step_avg:nanms\n"
        "step:1/3 train_loss:10.875 train_time:210ms step_avg:nanms\n"
        "step:2/3 train_loss:9.5 train_time:420ms step_avg:210.10ms\n"
        "step:3/3 train_loss:8.25 train_time:630ms step_avg:210.20ms\n"
        "step:3/3 val_loss:8.125 train_time:640ms step_avg:210.20ms\n",
        "train_loss",
        ((1, 10.875), (2, 9.5), (3, 8.25)),
        {"val_loss": (10.95, 8.125)},
        planned=3,
    ),
    Case(
        "llm.c",
        "s:0 tel:11.0100\ns:1 trl:10.9000 lr:0.000010 norm:15.20\ns:2 trl:10.5000 lr:0.000020 norm:9.10\n"
        "s:2 eval:0.2500\ns:2 tel:10.4000\n",
        "train loss",
        ((1, 10.9), (2, 10.5)),
        {"val loss": (11.01, 10.4), "norm": (15.2, 9.1)},
    ),
    Case(
        "llm.c",
        "val loss 11.010000\n"
        "step    1/100 | loss 10.900000 (+nanz)| norm 15.2000 (+nanz)| lr 1.00e-05 | 700.10 ms | 40.1% bf16 MFU"
        " | 700000 tok/s\n"
        "step    2/100 | loss 10.500000 (-1.20z)| norm 9.1000 (+0.10z)| lr 2.00e-05 | 650.10 ms | 43.1% bf16 MFU"
        " | 750000 tok/s\n",
        "loss",
        ((1, 10.9), (2, 10.5)),
        {"norm": (15.2, 9.1), "lr": (1e-5, 2e-5)},
        planned=100,
    ),
    Case(
        "OLMo",
        "2024-05-02 10:11:12.131\tnode-7:0\tolmo.train:900\tINFO\t[step=10/1000]\n"
        "    optim/total_grad_norm=2.500\n    train/CrossEntropyLoss=9.250\n    train/Perplexity=10,404\n"
        "    throughput/total_tokens=5,242,880\n"
        "2024-05-02 10:11:22.131\tnode-7:0\tolmo.train:900\tINFO\t[step=20/1000]\n"
        "    optim/total_grad_norm=1.500\n    train/CrossEntropyLoss=8.500\n    train/Perplexity=4,914\n",
        "train/CrossEntropyLoss",
        ((10, 9.25), (20, 8.5)),
        {"optim/total_grad_norm": (2.5, 1.5), "train/Perplexity": (10404.0, 4914.0)},
    ),
    Case(
        "Megatron-LM",
        " [2025-03-04 05:06:07] iteration       10/     500 | consumed samples:           80 |"
        " elapsed time per iteration (ms): 812.5 | learning rate: 0.000000E+00 | global batch size:     8 |"
        " loss scale: 8388608.0 | number of skipped iterations:  10 | number of nan iterations:   0 |\n"
        " [2025-03-04 05:06:17] iteration       20/     500 | consumed samples:          160 |"
        " elapsed time per iteration (ms): 712.5 | learning rate: 3.000000E-05 | global batch size:     8 |"
        " lm loss: 1.150000E+01 | loss scale: 32768.0 | grad norm: 4.250 | number of skipped iterations:   2 |"
        " number of nan iterations:   0 |\n"
        " [2025-03-04 05:06:27] iteration       30/     500 | consumed samples:          240 |"
        " elapsed time per iteration (ms): 711.5 | learning rate: 6.000000E-05 | global batch size:     8 |"
        " lm loss: 9.750000E+00 | loss scale: 32768.0 | grad norm: 3.125 | number of skipped iterations:   0 |"
        " number of nan iterations:   0 |\n"
        " validation loss at iteration 30 | lm loss value: 9.900000E+00 | lm loss PPL: 1.993000E+04 |\n",
        "lm loss",
        ((20, 11.5), (30, 9.75)),
        {"grad norm": (4.25, 3.125), "number of skipped iterations": (10.0, 2.0, 0.0)},
        planned=500,
    ),
    Case(
        "fairseq",
        "2023-01-02 03:04:05 | INFO | train_inner | epoch 001:    100 / 2000 loss=14.25, nll_loss=14.0, ppl=16384,"
        " wps=9000.1, ups=1.5, wpb=3500, bsz=120, num_updates=100, lr=1.25e-05, gnorm=3.5, loss_scale=64,"
        " wall=70\n"
        "2023-01-02 03:05:05 | INFO | train_inner | epoch 001:    200 / 2000 loss=12.5, nll_loss=12.0, ppl=4096,"
        " wps=9000.2, ups=1.5, wpb=3500, bsz=120, num_updates=200, lr=2.5e-05, gnorm=2.5, loss_scale=64,"
        " wall=140\n"
        "2023-01-02 04:04:05 | INFO | valid | epoch 001 | valid on 'valid' subset | loss 11.5 | nll_loss 11.25 |"
        " ppl 2435.5 | wps 20000 | wpb 2000 | bsz 60 | num_updates 2000\n"
        "2023-01-02 04:04:09 | INFO | train | epoch 001 | loss 12.75 | nll_loss 12.5 | ppl 5792.6 | wps 9001 |"
        " num_updates 2000 | lr 0.00025 | gnorm 2.1\n",
        "loss",
        ((100, 14.25), (200, 12.5)),
        {"gnorm": (3.5, 2.5)},
    ),
    Case(
        "fairseq",
        '2023-01-02 03:04:05 | INFO | train_inner | {"epoch": 1, "update": 0.05, "loss": "14.25", "nll_loss": "14",'
        ' "ppl": "16384", "wps": "9000", "num_updates": "100", "lr": "1.25e-05", "gnorm": "3.5"}\n'
        '2023-01-02 03:04:05 | INFO | train_inner | {"epoch": 1, "update": 0.1, "loss": "12.5", "nll_loss": "12",'
        ' "ppl": "4096", "wps": "9000", "num_updates": "200", "lr": "2.5e-05", "gnorm": "2.5"}\n'
        '2023-01-02 04:04:05 | INFO | valid | {"epoch": 1, "valid_loss": "11.5", "valid_nll_loss": "11.25",'
        ' "valid_num_updates": "2000"}\n'
        '2023-01-02 04:04:05 | INFO | train | {"epoch": 1, "train_loss": "12.75", "train_nll_loss": "12.5",'
        ' "train_num_updates": "2000"}\n',
        "loss",
        ((100, 14.25), (200, 12.5)),
        {"valid_loss": (11.5,)},
    ),
    Case(
        "torchtitan",
        "[rank0]:[titan] 2025-05-06 07:08:09,100 - root - INFO - \x1b[31mstep:  1  \x1b[32mloss:  8.25  "
        "\x1b[38;2;180;60;0mgrad_norm:  1.5000  \x1b[36mmemory:  1.50GiB(1.60%)  \x1b[34mtps: 1,234  tflops: 0.10"
        "  mfu: 0.03%\x1b[39m\n"
        "[rank0]:[titan] 2025-05-06 07:08:19,100 - root - INFO - \x1b[31mstep: 10  \x1b[32mloss:  6.75  "
        "\x1b[38;2;180;60;0mgrad_norm:  1.2500  \x1b[36mmemory:  1.50GiB(1.60%)  \x1b[34mtps: 12,345  tflops: 1.10"
        "  mfu: 0.33%\x1b[39m\n",
        "loss",
        ((1, 8.25), (10, 6.75)),
        {"grad_norm": (1.5, 1.25)},
    ),
    Case(
        "torchtune",
        "Step 1 | loss:1.75 lr:2e-05 tokens_per_second_per_gpu:512.5 grad_norm:3.5 \n"
        "Step 2 | loss:1.5 lr:4e-05 tokens_per_second_per_gpu:513.5 grad_norm:2.5 \n",
        "loss",
        ((1, 1.75), (2, 1.5)),
        {"grad_norm": (3.5, 2.5)},
    ),
    Case(
        "litgpt",
        "Epoch 1 | iter 1 step 0 | loss train: 1.750, val: n/a | iter time: 210.50 ms\n"
        "Epoch 1 | iter 2 step 1 | loss train: 1.500, val: n/a | iter time: 215.50 ms (step)\n"
        "Epoch 1 | iter 3 step 1 | loss train: 1.250, val: 1.300 | iter time: 211.50 ms\n",
        "loss train",
        ((1, 1.75), (2, 1.5), (3, 1.25)),
    ),
    Case(
        "Composer",
        "[batch=1/400]:\n\t Train time/batch: 0\n\t Train time/sample: 0\n\t Train loss/train/total: 10.7500\n"
        "\t Train metrics/train/LanguageCrossEntropy: 10.7400\n"
        "[batch=2/400]:\n\t Train time/batch: 1\n\t Train time/sample: 8\n\t Train loss/train/total: 9.5000\n"
        "\t Train metrics/train/LanguageCrossEntropy: 9.4900\n"
        "[Eval batch=5/5] Eval on eval data:\n\t Eval metrics/eval/LanguageCrossEntropy: 9.6000\n",
        "Train loss/train/total",
        ((1, 10.75), (2, 9.5)),
    ),
    Case(
        "MMEngine stdout",
        "2023/04/05 06:07:08 - mmengine - INFO - Epoch(train)  [1][ 50/100]  lr: 1.0000e-02  eta: 0:10:00  time: 0.3000"
        "  data_time: 0.0100  memory: 3100  loss: 2.2500  loss_cls: 1.2500  loss_bbox: 1.0000\n"
        "2023/04/05 06:07:18 - mmengine - INFO - Epoch(train)  [1][100/100]  lr: 1.0000e-02  eta: 0:09:00  time: 0.3100"
        "  data_time: 0.0100  memory: 3100  loss: 2.0000  loss_cls: 1.1500  loss_bbox: 0.8500\n"
        "2023/04/05 06:07:28 - mmengine - INFO - Epoch(val)  [1][20/20]    coco/bbox_mAP: 0.1250  time: 0.1000\n"
        "2023/04/05 06:07:38 - mmengine - INFO - Epoch(train)  [2][ 50/100]  lr: 1.0000e-03  eta: 0:08:00  time: 0.3000"
        "  data_time: 0.0100  memory: 3100  loss: 1.7500  loss_cls: 1.0000  loss_bbox: 0.7500\n",
        "loss",
        ((50, 2.25), (100, 2.0), (50, 1.75)),
        {"batches": (100.0, 100.0, 100.0), "lr": (1e-2, 1e-2, 1e-3)},
        within=((1, 50), (1, 100), (2, 50)),
    ),
    Case(
        "MMCV stdout",
        "2021-04-05 06:07:08,123 - mmdet - INFO - Epoch [1][50/100]\tlr: 1.978e-03, eta: 1 day, 4:10:00, time: 0.300,"
        " data_time: 0.010, memory: 3100, loss_cls: 1.2500, loss: 2.2500\n"
        "2021-04-05 06:07:18,123 - mmdet - INFO - Epoch [1][100/100]\tlr: 3.976e-03, eta: 23:10:00, time: 0.310,"
        " data_time: 0.010, memory: 3100, loss_cls: 1.1500, loss: 2.0000\n"
        "2021-04-05 06:08:18,123 - mmdet - INFO - Epoch [2][50/100]\tlr: 5.976e-03, eta: 22:10:00, time: 0.310,"
        " data_time: 0.010, memory: 3100, loss_cls: 1.0500, loss: 1.7500\n",
        "loss",
        ((50, 2.25), (100, 2.0), (50, 1.75)),
        within=((1, 50), (1, 100), (2, 50)),
    ),
    Case(
        "Detectron2 stdout",
        "[04/05 06:07:08 d2.utils.events]:  eta: 0:10:00  iter: 19  total_loss: 2.25  loss_cls: 1.25  loss_box_reg: 1"
        "    time: 0.3000  last_time: 0.3100  data_time: 0.0100   lr: 1.6068e-05  max_mem: 2900M\n"
        "[04/05 06:07:18 d2.utils.events]:  eta: 0:09:50  iter: 39  total_loss: 2  loss_cls: 1.125  loss_box_reg: 0.875"
        "    time: 0.3000  last_time: 0.3100  data_time: 0.0100   lr: 3.2068e-05  max_mem: 2900M\n",
        "total_loss",
        ((19, 2.25), (39, 2.0)),
        {"lr": (1.6068e-05, 3.2068e-05)},
    ),
    Case(
        "YOLOX",
        "2022-04-05 06:07:08 | INFO     | yolox.core.trainer:after_iter:246 - epoch: 1/300, iter: 10/20,"
        " gpu mem: 4096Mb, mem: 1.2Gb, iter_time: 0.250s, data_time: 0.010s, total_loss: 12.5, iou_loss: 4.5,"
        " l1_loss: 0.0, conf_loss: 6.0, cls_loss: 2.0, lr: 1.000e-06, size: 480, ETA: 1:10:00\n"
        "2022-04-05 06:07:18 | INFO     | yolox.core.trainer:after_iter:246 - epoch: 1/300, iter: 20/20,"
        " gpu mem: 4096Mb, mem: 1.2Gb, iter_time: 0.240s, data_time: 0.010s, total_loss: 11.5, iou_loss: 4.0,"
        " l1_loss: 0.0, conf_loss: 5.5, cls_loss: 2.0, lr: 4.000e-06, size: 512, ETA: 1:09:00\n"
        "2022-04-05 06:07:28 | INFO     | yolox.core.trainer:after_iter:246 - epoch: 2/300, iter: 10/20,"
        " gpu mem: 4096Mb, mem: 1.2Gb, iter_time: 0.230s, data_time: 0.010s, total_loss: 10.5, iou_loss: 3.5,"
        " l1_loss: 0.0, conf_loss: 5.0, cls_loss: 2.0, lr: 9.000e-06, size: 640, ETA: 1:08:00\n",
        "total_loss",
        ((10, 12.5), (20, 11.5), (10, 10.5)),
        {"batches": (20.0, 20.0, 20.0)},
        within=((1, 10), (1, 20), (2, 10)),
    ),
    Case(
        "Keras progress bar",
        "".join(
            f"Epoch {epoch}/3\n"
            f"\x1b[1m 1/48\x1b[0m \x1b[37m━━━━━━━━━━━━━━━━━━━━\x1b[0m 9s 200ms/step - loss: {loss + 1}\b\b\r"
            f"\x1b[1m25/48\x1b[0m \x1b[32m━━━━━━━━━━\x1b[0m\x1b[37m━━━━━━━━━━\x1b[0m \x1b[1m0s\x1b[0m 3ms/step"
            f" - loss: {loss + 0.5}\r"
            f"\x1b[1m48/48\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m\x1b[37m\x1b[0m \x1b[1m1s\x1b[0m 5ms/step"
            f" - loss: {loss} - val_loss: {loss + 0.25}\n"
            for epoch, loss in ((1, 2.5), (2, 1.5), (3, 1.25))
        ),
        "loss",
        ((1, 2.5), (2, 1.5), (3, 1.25)),
        {"val_loss": (2.75, 1.75, 1.5)},
    ),
    Case(
        "fastai table",
        "epoch     train_loss  valid_loss  accuracy  time    \n"
        "0         1.750000    1.500000    0.400000  00:15     \n"
        "1         1.250000    1.125000    0.500000  00:14     \n"
        "2         1.000000    1.000000    0.550000  00:14     \n",
        "train_loss",
        ((0, 1.75), (1, 1.25), (2, 1.0)),
        {"valid_loss": (1.5, 1.125, 1.0)},
    ),
    Case(
        "PyTorch word_language_model",
        "| epoch   1 |   200/  400 batches | lr 20.00 | ms/batch 12.25 | loss  7.25 | ppl  1408.10\n"
        "| epoch   1 |   400/  400 batches | lr 20.00 | ms/batch 12.15 | loss  6.50 | ppl   665.14\n"
        "-----------------------------------------------------------------------------------------\n"
        "| end of epoch   1 | time: 10.25s | valid loss  6.25 | valid ppl   518.01\n"
        "| epoch   2 |   200/  400 batches | lr 5.00 | ms/batch 12.25 | loss  6.00 | ppl   403.43\n",
        "loss",
        ((200, 7.25), (400, 6.5), (200, 6.0)),
        {"lr": (20.0, 20.0, 5.0), "valid loss": (6.25,)},
        within=((1, 200), (1, 400), (2, 200)),
    ),
    Case(
        "PyTorch MNIST example",
        "Train Epoch: 1 [0/60000 (0%)]\tLoss: 2.300000\n"
        "Train Epoch: 1 [640/60000 (1%)]\tLoss: 1.500000\n"
        "\nTest set: Average loss: 0.0500, Accuracy: 9830/10000 (98%)\n\n"
        "Train Epoch: 2 [0/60000 (0%)]\tLoss: 0.250000\n"
        "Train Epoch: 2 [640/60000 (1%)]\tLoss: 0.125000\n",
        "Loss",
        ((0, 2.3), (640, 1.5), (0, 0.25), (640, 0.125)),
        within=((1, 0), (1, 640), (2, 0), (2, 640)),
    ),
    Case(
        "PyTorch ImageNet example",
        "Epoch: [0][   1/5005]\tTime  6.25 ( 6.25)\tData  2.50 ( 2.50)\tLoss 7.1250e+00 (7.1250e+00)\tAcc@1   0.00"
        " (  0.00)\tAcc@5   0.78 (  0.78)\n"
        "Epoch: [0][  11/5005]\tTime  0.25 ( 1.25)\tData  0.00 ( 0.50)\tLoss 6.8750e+00 (7.0000e+00)\tAcc@1   0.78"
        " (  0.10)\tAcc@5   1.56 (  0.50)\n"
        "Test: [ 1/196]\tTime  3.25 ( 3.25)\tLoss 6.5000e+00 (6.5000e+00)\tAcc@1   1.50 (  1.50)\n"
        "Epoch: [1][   1/5005]\tTime  5.25 ( 5.25)\tData  2.50 ( 2.50)\tLoss 6.2500e+00 (6.2500e+00)\tAcc@1   1.00"
        " (  1.00)\tAcc@5   2.78 (  2.78)\n",
        "Loss",
        ((1, 7.125), (11, 6.875), (1, 6.25)),
        within=((0, 1), (0, 11), (1, 1)),
    ),
    Case(
        "XGBoost or LightGBM stdout",
        "[0]\ttrain-rmse:0.50000\teval-rmse:0.60000\n[1]\ttrain-rmse:0.40000\teval-rmse:0.55000\n"
        "[2]\ttrain-rmse:inf\teval-rmse:nan\n",
        "train-rmse",
        ((0, 0.5), (1, 0.4), (2, float("inf"))),
        {"eval-rmse": (0.6, 0.55, NAN)},
    ),
    Case(
        "XGBoost or LightGBM stdout",
        "[1]\ttraining's l2: 0.75\tvalid_1's l2: 0.8\n[2]\ttraining's l2: 0.5\tvalid_1's l2: 0.6\n"
        "Early stopping, best iteration is:\n",
        "training's l2",
        ((1, 0.75), (2, 0.5)),
        {"valid_1's l2": (0.8, 0.6)},
    ),
    Case(
        "CatBoost stdout",
        "Learning rate set to 0.03\n0:\tlearn: 0.5000000\ttotal: 47.1ms\tremaining: 1.84s\n"
        "1:\tlearn: 342902928123456789012345678901234.0000000\ttotal: 48ms\tremaining: 912ms\n"
        "2:\tlearn: 1.16e+62\ttotal: 49ms\tremaining: 604ms\n",
        "learn",
        ((0, 0.5), (1, 342902928123456789012345678901234.0), (2, 1.16e62)),
    ),
    Case(
        "Lightning progress bar",
        "Epoch 0:  50%|█████     | 5/10 [00:00<00:01, 40.10it/s, v_num=3, train_loss=2.500]\r"
        "Epoch 0: 100%|██████████| 10/10 [00:01<00:00, 41.10it/s, v_num=3, train_loss=2.250]\r"
        "Epoch 1:  50%|█████     | 5/10 [00:00<00:01, 40.10it/s, v_num=3, train_loss=2.000]\r"
        "Epoch 1: 100%|██████████| 10/10 [00:01<00:00, 41.10it/s, v_num=3, train_loss=1.750]\n",
        "train_loss",
        ((5, 2.5), (10, 2.25), (5, 2.0), (10, 1.75)),
        within=((0, 5), (0, 10), (1, 5), (1, 10)),
    ),
    Case(
        "YOLO console",
        "\n      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size\n"
        "        1/3      2.41G      1.250      2.500      1.125         12        640:  50%|█████     | 2/4 [00:01]\r"
        "        1/3      2.41G      1.500      2.750      1.250         12        640: 100%|██████████| 4/4 [00:02]\n"
        "                 Class     Images  Instances      Box(P          R      mAP50  mAP50-95): 100%|█████| 1/1\n"
        "                   all         16         40      0.500      0.250      0.300      0.200\n"
        "\n      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size\n"
        "        2/3      2.41G      1.000      2.000      1.000         10        640: 100%|██████████| 4/4 [00:02]\n"
        "\n      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size\n"
        "        3/3      2.41G      0.750      1.500      0.750         11        640: 100%|██████████| 4/4 [00:02]\n",
        "box_loss+cls_loss+dfl_loss",
        ((1, 1.5), (2, 1.0), (3, 0.75)),
        {"cls_loss": (2.75, 2.0, 1.5)},
    ),
)


def _name(case: Case) -> str:
    return case.tool


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_a_tools_print_is_read(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text(case.text, newline="")
    (raw,) = Text().read(LogFile(path, "log.txt"))
    assert raw.format == case.tool
    assert raw.facts.roles["loss"] == case.key
    curve = raw.curves[case.key.split("+")[0]]
    np.testing.assert_array_equal(np.stack([curve.step, curve.value], axis=1), np.array(case.rows))
    for name, values in case.beside.items():
        np.testing.assert_array_equal(raw.curves[name].value, np.array(values))
    if case.within:
        roles = raw.facts.roles
        got = np.stack([raw.curves[roles["epoch"]].value, raw.curves[roles["batch"]].value], axis=1)
        np.testing.assert_array_equal(got, np.array(case.within))
    assert raw.facts.planned_steps == case.planned
