"""The models and scripts of other people that `zoo.py` runs, with the lines that a user had to write for each."""

# ruff: noqa: E501  # the lines that users write are shown as they are
from __future__ import annotations

from zoo_entry import Entry, plain
from zoo_trainers import TRAINERS

IMAGES = "--task images --data digits "


def _sized(name: str, source: str, arguments: str, wrote: str = "", has: str = "") -> Entry:
    """With a depth of 2 and a width of 64."""
    return plain(name, source, f"{arguments} --depth 2 --width 64", wrote, has)


_LOADER = """
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
{made}
loader = DataLoader(TensorDataset(x, y), batch_size={size}, shuffle=True)
"""


def _loader(made: str, size: int = 16) -> str:
    return _LOADER.format(made=made, size=size)


_DIGITS = _loader("y = torch.arange(2048) % 10\nx = torch.randn(10, 1, 28, 28)[y] + torch.randn(2048, 1, 28, 28)")
_SPIRAL = _loader("x = torch.randn(2048, 16)\ny = (x @ torch.randn(16, 5)).argmax(1)")
_SUM = _loader("x = torch.randn(2048, 16)\ny = torch.tanh(x @ torch.randn(16, 8)).sum(1, keepdim=True)")
_WAVES = _loader(
    "t = torch.rand(2048, 1, 7) * 6 + torch.arange(56).view(1, 56, 1) / 4\nx, y = t.sin()[:, :48], t.sin()[:, 48:]"
)
_HIDDEN = _loader(
    "whole = (torch.randint(16, (2048, 1)) + torch.randint(3, (2048, 32))) % 16\nhidden = torch.rand(2048, 32) < 0.15\n"
    "x, y = whole.masked_fill(hidden, 16), whole.masked_fill(~hidden, -100)"
)
_GRAPH = """
import torch

torch.manual_seed(0)
y = torch.arange(200) % 4
x = torch.randn(4, 32)[y] + torch.randn(200, 32)
adjacency = (torch.rand(200, 200) < torch.where(y[:, None] == y, 0.1, 0.01)).float()
adjacency = ((adjacency + adjacency.T + torch.eye(200)) > 0).float()
edges = adjacency.nonzero().T
normalised = adjacency / adjacency.sum(1, keepdim=True)
train = torch.arange(200) < 120
"""
_WHOLE_GRAPH = """
from data import edges, train, x, y
def batch(step, batch_size, generator): return x, y
def loss_fn(model, batch): return torch.nn.functional.cross_entropy(model(x, edges)[train], y[train])
"""

LANGUAGE_MODELS = [
    _sized("GPT", "karpathy/nanoGPT:model.py", "SOURCE:GPT --set n_head=4"),
    plain("GPT", "karpathy/minGPT:mingpt/model.py", "SOURCE:GPT --set n_layer=2,n_head=4,n_embd=64,model_type=none"),
    _sized(
        "TransformerWrapper",
        "x-transformers",
        "mine.py:build",
        """
from x_transformers import Decoder, TransformerWrapper
def build(depth, width): return TransformerWrapper(num_tokens=256, max_seq_len=32, attn_layers=Decoder(dim=width, depth=depth))
""",
    ),
    _sized(
        "Mamba between an embedding and a linear layer",
        "mambapy",
        "mine.py:build",
        """
from torch import nn; from mambapy.mamba import Mamba, MambaConfig
def build(depth, width): return nn.Sequential(nn.Embedding(256, width), Mamba(MambaConfig(width, depth)), nn.Linear(width, 256))
""",
    ),
    plain(
        "RNNModel, LSTM",
        "pytorch/examples:word_language_model/model.py",
        "SOURCE:RNNModel --set rnn_type=LSTM,ntoken=256,ninp=64,nhid=64,nlayers=2 --loss-fn mine.py:loss_fn --num-steps 200 --hold-steps 300",
        """
from torch.nn.functional import nll_loss
def loss_fn(model, batch): return nll_loss(model(batch[0].T, model.init_hidden(8))[0], batch[1].T.flatten())
""",
    ),
    plain(
        "TransformerModel",
        "pytorch/examples:word_language_model/model.py",
        "SOURCE:TransformerModel --set ntoken=256,ninp=64,nhead=4,nhid=256,nlayers=2 --loss-fn mine.py:loss_fn",
        """
from torch.nn.functional import nll_loss
def loss_fn(model, batch): return nll_loss(model(batch[0].T).flatten(0, 1), batch[1].T.flatten())
""",
    ),
    _sized(
        "nn.TransformerEncoder of RZTXEncoderLayer",
        "majumderb/rezero:rezero/transformer/rztx.py",
        "mine.py:build --batch-fn data.py:loader",
        """
from torch import nn; from rztx import RZTXEncoderLayer
def build(depth, width): return nn.Sequential(nn.Embedding(17, width), nn.TransformerEncoder(RZTXEncoderLayer(width, 4), depth), nn.Linear(width, 17))
""",
        _HIDDEN,
    ),
    _sized(
        "RZTXEncoderLayer, one after the other, [T, B]",
        "majumderb/rezero:rezero/transformer/rztx.py",
        "mine.py:build --batch-fn data.py:loader",
        """
from torch import nn; from rztx import RZTXEncoderLayer as Layer
def build(depth, width): return nn.Sequential(nn.Embedding(17, width), *(Layer(width, 4) for _ in range(depth)), nn.Linear(width, 17))
def loss_fn(model, batch): return nn.functional.cross_entropy(model(batch[0].T).flatten(0, 1), batch[1].T.flatten())
""",
        _HIDDEN,
    ),
    plain(
        "GPT of the DDP example",
        "pytorch/examples:distributed/minGPT-ddp/mingpt/model.py",
        "SOURCE:GPT --set n_layer=2,n_head=4,n_embd=64,model_type=none",
    ),
    _sized(
        "Transformer of the FSDP2 example",
        "pytorch/examples:distributed/FSDP2/model.py",
        "SOURCE:Transformer --set vocab_size=17,max_seq_len=32 --batch-fn data.py:loader",
        has=_HIDDEN,
    ),
    _sized(
        "Llama 2 of the tensor-parallel example",
        "pytorch/examples:distributed/tensor_parallelism/llama2_model.py",
        "SOURCE:Transformer --set n_heads=4",
    ),
    _sized(
        "PerformerLM", "performer-pytorch", "performer_pytorch:PerformerLM --set max_seq_len=32,heads=4,causal=true"
    ),
    _sized(
        "LinformerLM",
        "linformer",
        "linformer:LinformerLM --set num_tokens=17,seq_len=32,heads=4,k=16 --batch-fn data.py:loader",
        has=_HIDDEN,
    ),
    _sized("gMLP", "g-mlp-pytorch", "g_mlp_pytorch:gMLP --set num_tokens=256,seq_len=32,causal=true"),
    _sized("minLM", "minGRU-pytorch", "minGRU_pytorch.minLM:minLM"),
    _sized("nGPT", "nGPT-pytorch", "nGPT_pytorch:nGPT --set heads=4"),
    _sized(
        "LocalTransformer",
        "local-attention",
        "local_attention:LocalTransformer --set max_seq_len=32,local_attn_window_size=16",
    ),
    _sized("PaLM", "PaLM-pytorch", "palm_pytorch:PaLM --set heads=4"),
    _sized("Transformer with gated loops", "gateloop-transformer", "gateloop_transformer:Transformer --set heads=4"),
    _sized("Mega", "Mega-pytorch", "mega_pytorch:Mega --set causal=true"),
    plain(
        "MEGABYTE",
        "MEGABYTE-pytorch",
        "mine.py:build",
        """
from MEGABYTE_pytorch import MEGABYTE
def build(width=64): return MEGABYTE(num_tokens=256, dim=(width, width), depth=(2, 1), max_seq_len=(16, 4), heads=4)
def loss_fn(model, batch): return model(batch[0], return_loss=True)
""",
    ),
    _sized(
        "HTransformer1D",
        "h-transformer-1d",
        "h_transformer_1d:HTransformer1D --set max_seq_len=32,block_size=16,causal=true",
    ),
    _sized("GatedStateSpacesLM", "gated-state-spaces-pytorch", "gated_state_spaces_pytorch:GatedStateSpacesLM"),
    _sized(
        "FeedbackTransformer",
        "feedback-transformer-pytorch",
        "feedback_transformer_pytorch:FeedbackTransformer --set mem_len=32,seq_len=2 --seq-len 16",
    ),
    _sized(
        "LinearAttentionTransformerLM",
        "linear-attention-transformer",
        "linear_attention_transformer:LinearAttentionTransformerLM --set max_seq_len=32,heads=4,causal=true",
    ),
    _sized(
        "ReformerLM",
        "reformer-pytorch",
        "reformer_pytorch:ReformerLM --set max_seq_len=32,heads=4,bucket_size=16,causal=true",
    ),
    _sized(
        "SinkhornTransformerLM",
        "sinkhorn-transformer",
        "sinkhorn_transformer:SinkhornTransformerLM --set max_seq_len=32,heads=4,bucket_size=16,causal=true",
    ),
    _sized(
        "HierarchicalTransformer",
        "simple-hierarchical-transformer",
        "simple_hierarchical_transformer:HierarchicalTransformer --set heads=4,seq_len=32",
    ),
]

_COLOURS = _loader("y = torch.arange(2048) % 10\nx = torch.randn(10, 3, 8, 8)[y] + torch.randn(2048, 3, 8, 8)")
_VIT = "--set image_size=8,patch_size=2,num_classes=10,channels=1,heads=4,mlp_dim=128"
IMAGE_MODELS = [
    *(
        _sized(name, f"vit-pytorch:{file}", f"{IMAGES}SOURCE:{name} {_VIT}{more}")
        for file, name, more in (
            ("vit.py", "ViT", ""),
            ("simple_vit.py", "SimpleViT", ""),
            ("deepvit.py", "DeepViT", ""),
            ("parallel_vit.py", "ViT", ""),
            ("vit_for_small_dataset.py", "ViT", ""),
            ("vit_with_patch_dropout.py", "ViT", ""),
            ("simple_vit_with_register_tokens.py", "SimpleViT", ""),
            ("normalized_vit.py", "nViT", ""),
        )
    ),
    *(
        _sized(
            name,
            f"vit-pytorch:{file}",
            f"SOURCE:{name} {_VIT.replace('channels=1', 'cls_depth=1')} --batch-fn data.py:loader",
            has=_COLOURS,
        )
        for file, name in (("cait.py", "CaiT"), ("xcit.py", "XCiT"))
    ),
    _sized(
        "MLPMixer",
        "mlp-mixer-pytorch",
        IMAGES + "mlp_mixer_pytorch:MLPMixer --set image_size=8,channels=1,patch_size=2,num_classes=10",
    ),
    _sized(
        "gMLPVision",
        "g-mlp-pytorch",
        IMAGES + "g_mlp_pytorch:gMLPVision --set image_size=8,channels=1,patch_size=2,num_classes=10",
    ),
    plain(
        "Net of the MNIST example",
        "pytorch/examples:mnist/main.py",
        "SOURCE:Net --batch-fn data.py:loader",
        has=_DIGITS,
    ),
    plain(
        "Net of the RNN example",
        "pytorch/examples:mnist_rnn/main.py",
        "SOURCE:Net --batch-fn data.py:loader",
        has=_DIGITS,
    ),
    plain(
        "Net of the Hogwild example",
        "pytorch/examples:mnist_hogwild/main.py",
        "SOURCE:Net --batch-fn data.py:loader",
        has=_DIGITS,
    ),
    plain(
        "VAE, its DataLoader and loss",
        "pytorch/examples:vae/main.py",
        "SOURCE:VAE --batch-fn SOURCE:train_loader --loss-fn mine.py:loss_fn",
        """
from main import loss_function
def loss_fn(model, batch): recon, mu, logvar = model(batch[0]); return loss_function(recon, batch[0], mu, logvar)
""",
    ),
    plain(
        "super resolution",
        "pytorch/examples:super_resolution/model.py",
        "SOURCE:Net --set upscale_factor=2 --batch-fn data.py:loader",
        has=_loader("y = torch.randn(512, 1, 16, 16).cumsum(2).cumsum(3) / 16\nx = y[:, :, ::2, ::2]"),
    ),
    plain(
        "TransformerNet of neural style",
        "pytorch/examples:fast_neural_style/neural_style/transformer_net.py",
        "SOURCE:TransformerNet --batch-fn data.py:loader",
        has=_loader("x = torch.rand(64, 3, 16, 16)\ny = x.flip(1)", 4),
    ),
    plain(
        "XUnet",
        "x-unet",
        "x_unet:XUnet --set channels=1,dim=8 --batch-fn data.py:loader",
        has=_loader("y = torch.randn(512, 1, 16, 16).cumsum(2) / 4\nx = y + torch.randn_like(y)", 4),
    ),
    plain(
        "AxialImageTransformer",
        "axial-attention",
        "axial_attention:AxialImageTransformer --set heads=4,reversible=false --width 16 --batch-fn data.py:loader",
        has=_loader("x = torch.randn(256, 16, 8, 8)\ny = x.cumsum(2)", 8),
    ),
]

OTHERS = [
    *(
        plain(
            f"{kind}, a whole graph a step",
            "torch_geometric",
            f"torch_geometric.nn:{kind} --set in_channels=32,out_channels=4,hidden_channels=64,num_layers=2 --batch-fn mine.py:batch --loss-fn mine.py:loss_fn",
            "import torch; from data import edges, train, x, y\n" + _WHOLE_GRAPH.strip().split("\n", 1)[1],
            _GRAPH,
        )
        for kind in ("GCN", "GAT", "GraphSAGE", "GIN")
    ),
    plain(
        "GCN",
        "pytorch/examples:gcn/main.py",
        "SOURCE:GCN --set input_dim=32,output_dim=4 --batch-fn mine.py:batch --loss-fn mine.py:loss_fn",
        """
import torch; from data import normalised, train, x, y
def batch(step, batch_size, generator): return x, y
def loss_fn(model, batch): return torch.nn.functional.nll_loss(model(x, normalised)[train], y[train])
""",
        _GRAPH,
    ),
    plain(
        "GAT",
        "pytorch/examples:gat/main.py",
        "SOURCE:GAT --set in_features=32,n_hidden=64,n_heads=4,num_classes=4 --batch-fn mine.py:batch --loss-fn mine.py:loss_fn",
        """
import torch; from data import adjacency, train, x, y
def batch(step, batch_size, generator): return x, y
def loss_fn(model, batch): return torch.nn.functional.nll_loss(model(x, adjacency)[train], y[train])
""",
        _GRAPH,
    ),
    plain(
        "EGNN_Network",
        "egnn-pytorch",
        "egnn_pytorch:EGNN_Network --set num_tokens=8,num_nearest_neighbors=4 --width 32 --batch-fn data.py:loader --loss-fn mine.py:loss_fn",
        """
from torch.nn.functional import mse_loss
def loss_fn(model, batch): kinds, places, energy = batch; return mse_loss(model(kinds, places)[0].mean((1, 2)), energy)
""",
        """
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
kinds, places = torch.randint(8, (512, 12)), torch.randn(512, 12, 3)
loader = DataLoader(TensorDataset(kinds, places, torch.cdist(places, places).mean((1, 2))), batch_size=8, shuffle=True)
""",
    ),
    plain(
        "MLP",
        "rtdl_revisiting_models",
        "rtdl_revisiting_models:MLP --set d_in=16,d_out=5,d_block=64,dropout=0.1 --batch-fn data.py:loader",
        has=_SPIRAL,
    ),
    plain(
        "ResNet for tables",
        "rtdl_revisiting_models",
        "rtdl_revisiting_models:ResNet --set d_in=16,d_out=5,d_block=64,d_hidden=128,d_hidden_multiplier=none,dropout1=0.1,dropout2=0 --batch-fn data.py:loader",
        has=_SPIRAL,
    ),
    plain(
        "FTTransformer",
        "rtdl_revisiting_models",
        "mine.py:build --batch-fn data.py:loader",
        """
from rtdl_revisiting_models import FTTransformer
def build(): return FTTransformer(n_cont_features=16, cat_cardinalities=[], d_out=5, **FTTransformer.get_default_kwargs(2))
def loss_fn(model, batch): return nn.functional.cross_entropy(model(batch[0], None), batch[1])
""".replace("import FTTransformer", "import FTTransformer; from torch import nn"),
        _SPIRAL,
    ),
    plain(
        "TabM, each of its 8 networks trained",
        "tabm",
        "tabm:TabM --set n_num_features=16,d_out=5,n_blocks=2,d_block=64,k=8,dropout=0,start_scaling_init=random-signs --batch-fn data.py:loader --loss-fn mine.py:loss_fn",
        """
from torch.nn.functional import cross_entropy
def loss_fn(model, batch): return cross_entropy(model(batch[0]).flatten(0, 1), batch[1].repeat_interleave(8))
""",
        _SPIRAL,
    ),
    plain(
        "TabTransformer",
        "tab-transformer-pytorch",
        "mine.py:build --batch-fn data.py:loader",
        """
from tab_transformer_pytorch import TabTransformer; from torch.nn.functional import mse_loss
def build(width=32): return TabTransformer(categories=(4, 8), num_continuous=16, dim=width, depth=2, heads=4)
def loss_fn(model, batch): return mse_loss(model(batch[1], batch[0]), batch[2])
""",
        """
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x, kinds = torch.randn(2048, 16), torch.randint(4, (2048, 2))
loader = DataLoader(TensorDataset(x, kinds, x.sum(1, keepdim=True) + kinds.sum(1, keepdim=True)), batch_size=16, shuffle=True)
""",
    ),
    plain(
        "iTransformer",
        "iTransformer",
        "iTransformer:iTransformer --set num_variates=7,lookback_len=48,pred_length=8,num_tokens_per_variate=1 --batch-fn data.py:loader --loss-fn mine.py:loss_fn",
        """
def loss_fn(model, batch): return model(batch[0], targets=batch[1])
""",
        _WAVES,
    ),
    plain(
        "TCN",
        "pytorch-tcn",
        "mine.py:build --batch-fn data.py:loader",
        """
from pytorch_tcn import TCN
def build(depth=2, width=32): return TCN(7, [width] * depth, output_projection=7, input_shape="NLC")
""",
        _WAVES.replace("x, y = t.sin()[:, :48], t.sin()[:, 48:]", "x, y = t.sin()[:, :-1], t.sin()[:, 1:]"),
    ),
    plain(
        "NBeatsNet",
        "nbeats-pytorch",
        "nbeats_pytorch.model:NBeatsNet --set forecast_length=8,backcast_length=48,hidden_layer_units=64 --batch-fn data.py:loader --loss-fn mine.py:loss_fn",
        """
from torch.nn.functional import mse_loss
def loss_fn(model, batch): return mse_loss(model(batch[0][..., 0])[1], batch[1][..., 0])
""",
        _WAVES,
    ),
    plain(
        "Sequence of the sine example, in double",
        "pytorch/examples:time_sequence_prediction/train.py",
        "mine.py:build --batch-fn data.py:loader",
        """
from train import Sequence
def build(): return Sequence().double()
""",
        _loader("t = (torch.rand(97, 1) * 6 + torch.arange(33) / 4).double()\nx, y = t.sin()[:, :-1], t.sin()[:, 1:]"),
    ),
    plain(
        "SirenNet",
        "siren-pytorch",
        "siren_pytorch:SirenNet --set dim_in=2,dim_hidden=64,dim_out=1,num_layers=3 --batch-fn data.py:loader",
        has=_loader("x = torch.rand(2048, 2) * 2 - 1\ny = (8 * x[:, :1]).sin() * (5 * x[:, 1:]).cos()", 64),
    ),
    plain(
        "KAN",
        "pykan",
        "mine.py:build --batch-fn data.py:loader",
        """
from kan import KAN
def build(width=5): return KAN(width=[16, width, 1], grid=3, k=3, auto_save=False)
""",
        _SUM,
    ),
    plain(
        "an ODE's right-hand side",
        "torchdiffeq",
        "mine.py:build --batch-fn data.py:loader",
        """
from torch import nn, tensor; from torchdiffeq import odeint
def build(width=64): return nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))
def loss_fn(model, batch): return nn.functional.mse_loss(odeint(lambda t, x: model(x), batch[0], tensor([0.0, 1.0]), method="rk4")[1], batch[1])
""",
        _loader("x = torch.randn(2048, 2)\ny = x @ torch.tensor([[0.5, 0.8], [-0.8, 0.5]])"),
    ),
    plain(
        "NeuralNetClassifier's module",
        "skorch",
        "mine.py:model --batch-fn data.py:loader",
        """
from torch import nn; from skorch import NeuralNetClassifier
net = NeuralNetClassifier(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5)), criterion=nn.CrossEntropyLoss)
model = net.module
""",
        _SPIRAL,
    ),
    plain(
        "Conformer on frames",
        "conformer",
        "mine.py:build --batch-fn data.py:loader",
        """
from conformer import Conformer; from torch import nn
def build(depth=2, width=32): return nn.Sequential(nn.Linear(7, width), Conformer(width, depth=depth, heads=4), nn.Linear(width, 7))
""",
        _WAVES.replace("x, y = t.sin()[:, :48], t.sin()[:, 48:]", "x, y = t.sin()[:, :48], t.cos()[:, :48]"),
    ),
    plain(
        "VectorQuantize in an autoencoder",
        "vector-quantize-pytorch",
        "mine.py:build --batch-fn data.py:loader",
        """
from vector_quantize_pytorch import VectorQuantize; from torch import nn
def build(width=32): return nn.ModuleList([nn.Linear(16, width), VectorQuantize(width, 64), nn.Linear(width, 16)])
def loss_fn(model, batch): z, _, commit = model[1](model[0](batch[0])); return nn.functional.mse_loss(model[2](z), batch[0]) + commit
""",
        _SPIRAL,
    ),
    plain(
        "Nystromformer on frames",
        "nystrom-attention",
        "mine.py:build --batch-fn data.py:loader",
        """
from nystrom_attention import Nystromformer; from torch import nn
def build(depth=2, width=32): return nn.Sequential(nn.Linear(7, width), Nystromformer(dim=width, depth=depth, heads=4, num_landmarks=12), nn.Linear(width, 7))
""",
        _WAVES.replace("x, y = t.sin()[:, :48], t.sin()[:, 48:]", "x, y = t.sin()[:, :48], t.cos()[:, :48]"),
    ),
    plain(
        "the model, data and optimizer of the DDP tutorial",
        "pytorch/examples:distributed/ddp-tutorial-series/single_gpu.py",
        "mine.py:model",
        """
from single_gpu import load_train_objs, prepare_dataloader; from torch.optim import SGD
data, model, _ = load_train_objs(); batch = prepare_dataloader(data, 32)
def optimizer(params, lr): return SGD(params, lr=lr)
""",
    ),
    plain(
        "ToyModel of the DDP example",
        "pytorch/examples:distributed/ddp/example.py",
        "SOURCE:ToyModel --batch-fn data.py:loader",
        has=_loader("x = torch.randn(2048, 10)\ny = torch.tanh(x @ torch.randn(10, 5))"),
    ),
    plain("DCGAN's generator", "pytorch/examples:dcgan/main.py", "SOURCE:Generator --set ngpu=0"),
    plain("REINFORCE's policy", "pytorch/examples:reinforcement_learning/reinforce.py", "SOURCE:Policy"),
    plain(
        "polynomial regression, a bare script",
        "pytorch/examples:regression/main.py",
        "SOURCE:fc --batch-fn mine.py:batch",
        """
import torch; from main import get_batch
def batch(step, batch_size, generator): torch.manual_seed(generator.initial_seed()); return get_batch(batch_size)
""",
    ),
]

ENTRIES = [*LANGUAGE_MODELS, *IMAGE_MODELS, *OTHERS, *TRAINERS]
