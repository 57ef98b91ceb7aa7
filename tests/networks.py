"""Networks of sequences from flat options, in bins of 1 ms: times in ms are numbers of bins."""

from neuro_lightning.contracts import DataSpec
from neuro_lightning.models.ndt import NDTNet
from neuro_lightning.models.stndt import Contrast
from neuro_lightning.nn.rate_readout import ReadoutSettings
from neuro_lightning.nn.readin import ReadInSettings
from neuro_lightning.nn.step_transformer import Attention, Dropouts

EMBEDDED = ("count_width", "max_count")


def spec_of(n_in=5, n_neurons=8, n_bins=10, n_forward=3, mean_rates=(), **values):
    sizes = {"n_in": n_in, "n_out": n_neurons - n_in, "n_bins": n_bins, "n_forward": n_forward}
    return DataSpec("x", **sizes, bin_ms=1, mean_rates=tuple(mean_rates), **values)


def parts(dropout=0.0, readout=0.0, **settings):
    """Read-in and readout of a network, with their dropouts."""
    return {"readin": ReadInSettings(dropout=dropout, **settings), "readout": ReadoutSettings(dropout=readout)}


def transformer(
    network, n_in=5, n_neurons=8, n_bins=10, n_forward=3, *, stride=1, context=(None, None), reach=None, smoothed=(),
    counts=True, linear=True, dropout=(0.0, 0.0, 0.0), mean_rates=(), partial=False, views=None,
    **options,
):  # fmt: skip
    """A network; ``context``, ``reach`` and ``smoothed`` are in steps of ``stride`` bins."""
    ahead, back = (None if steps is None else steps * stride for steps in context)
    shown = {name: options.pop(name) for name in EMBEDDED if name in options}
    shown |= {"smoothed_ms": [sd * stride for sd in smoothed], "counts": counts, "width": "auto" if linear else None}
    own = {"pre_norm": True, "positions": "learned"} if network is NDTNet else {"contrast": Contrast()}
    settings = {
        "width": None, "layers": 4, "attention_heads": 2, "feedforward": 128, "scaled_init": True, **own, **options,
        **parts(readout=dropout[2], **shown),
        "attention": Attention(ahead, back, None if reach is None else [steps * stride for steps in reach]),
        "dropout": Dropouts(embedding=dropout[0], layers=dropout[1]),
    }  # fmt: skip
    net = network(spec_of(n_in, n_neurons, n_bins, n_forward, mean_rates, partial=partial), step_ms=stride, **settings)
    if views is not None:
        net.views = views
    return net
