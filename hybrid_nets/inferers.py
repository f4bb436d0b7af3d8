"""Sliding-window inference where there is something to see, in memory that follows a slab of the volume."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.inferers.utils import _get_scan_interval
from monai.transforms.utils import generate_spatial_bounding_box
from monai.utils import convert_to_dst_type, ensure_tuple_rep, fall_back_tuple
from tqdm import tqdm

from hybrid_nets.bundle import flag
from hybrid_nets.distributed import is_first_process
from hybrid_nets.errors import InputError

__all__ = ["SlabInferer", "SlabSliceInferer", "labels_only"]

Window = tuple[slice, ...]

# Logits of class 0 and of the others where no window ran: class 0 to argmax and to softmax, no class to sigmoid.
BACKGROUND = (-20.0, -40.0)


class SlabInferer(SlidingWindowInferer):
    """MONAI's ``SlidingWindowInferer`` that can leave out what holds no foreground, and keep labels instead of logits.

    With neither ``foreground`` nor ``reduce`` it is MONAI's; windows, padding and blending are MONAI's in any case.

    A voxel is foreground if any channel there is, or a voxel within ``margin`` of it along each axis. Windows slide
    inside the box around the foreground (grown to ``roi_size`` within the image), and those without foreground don't
    run. So foreground has the values that MONAI's inferer gives on the image cropped to this box; other voxels have
    what the windows that ran give, and are background where none did. A network that has learned from cropped images
    wants this box; without it windows stay where MONAI puts them, and foreground has the full run's values.

    MONAI's code takes over, with a warning, runs all windows and is reduced afterwards: with ``buffer_steps``,
    ``with_coord`` or a ``condition``, and for networks that return anything but one tensor of the window's size.
    Elsewhere no gradients are kept. Source: MONAI issue 6427 and pull request 9071 reduce slab by slab, too.

    Args:
        roi_size: the window in voxels; a component that is not positive is the image's.
        args: MONAI's next arguments in order: ``sw_batch_size``, ``overlap``, ``mode`` …
        foreground: None to run all windows; or the background's intensity, all other voxels being foreground; or a
            function of the image ``(c, *)`` to a mask of the same shape, as the ``select_fn`` of ``CropForeground``.
        margin: in voxels.
        box: whether windows slide inside the foreground's box, or over the whole image.
        reduce: None for logits ``(n, k, *)``, or ``"argmax"`` for labels ``(n, 1, *)`` in the smallest of ``uint8``,
            ``int16`` and ``int32`` that holds k classes, from logits of no more than a window's slices at a time.
        background: k logits for where no window ran; by default -20 for class 0 and -40 for the others, which is
            background to argmax, softmax and sigmoid. Labels are 0 there.
        slab_dim: the spatial axis that slabs are cut across. Memory is least for the longest. With 0, sums are in
            MONAI's order and labels those of its logits bit for bit; else they may differ where classes nearly tie.
        kwargs: MONAI's other arguments, by name.

    Raises:
        ValueError: ``reduce``, ``margin``, ``slab_dim`` or ``overlap`` makes no sense.
        InputError: ``background`` is not one value for each class, or ``reduce`` meets a network with one class.

    Example::

        >>> image = torch.zeros(1, 1, 32, 32)
        >>> image[..., 20:28, 20:28] = 1
        >>> inferer = SlabInferer(roi_size=(16, 16), foreground=0, reduce="argmax")
        >>> labels = inferer(image, lambda x: torch.cat([0.5 - x, x - 0.5], 1))
        >>> labels.shape, labels.dtype, labels.sum()
        (torch.Size([1, 1, 32, 32]), torch.uint8, tensor(64))
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int,
        *args: Any,
        foreground: float | Callable[[torch.Tensor], torch.Tensor] | None = None,
        margin: int = 0,
        box: bool = True,
        reduce: str | None = None,
        background: Sequence[float] | None = None,
        slab_dim: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(roi_size, *args, **kwargs)
        if reduce not in (None, "argmax"):
            raise ValueError(f"reduce is {reduce!r}; give None (null) for logits or 'argmax' for labels.")
        if margin < 0:
            raise ValueError(f"margin is {margin}; give 0 voxels or more.")
        self.foreground, self.margin, self.box = foreground, margin, box
        self.reduce, self.background, self.slab_dim = reduce, background, slab_dim

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Logits ``(n, k, *)`` or labels ``(n, 1, *)`` of images ``(n, c, *)``; a MetaTensor's metadata are kept.

        ``args`` and ``kwargs`` go to ``network``, except those that MONAI's inferer takes, such as ``device``.
        """
        if self.foreground is None and self.reduce is None:
            return super().__call__(inputs, network, *args, **kwargs)
        given = {key: value for key, value in kwargs.items() if key not in ("device", "buffer_steps", "buffer_dim")}
        images, device = inputs.as_subclass(torch.Tensor), find_device(self, inputs, kwargs)
        try:
            check_covered(self, kwargs)
            out = [self.infer(image[None], lambda x: network(x, *args, **given), device) for image in images]
        except NotCoveredError as reason:
            warnings.warn(f"MONAI's code runs all windows and keeps all logits, as {reason}.", stacklevel=2)
            return reduce_each(super().__call__(inputs, network, *args, **kwargs), self.reduce)
        merged = out[0] if len(out) == 1 else torch.cat(out)
        return convert_to_dst_type(merged, inputs, dtype=merged.dtype, device=device)[0]

    @torch.no_grad()
    def infer(self, image: torch.Tensor, network: Callable, device: torch.device) -> torch.Tensor:
        """The result for one image ``(1, c, *)``, on ``device``."""
        roi_size = fall_back_tuple(self.roi_size, image.shape[2:])
        dim = check_axis(self.slab_dim, len(roi_size))
        mask = find_foreground(image, self.foreground)
        image, mask, inside = pad_to(roi_size, image, mask, self.padding_mode, self.cval)
        windows = find_windows(image.shape[2:], roi_size, self.overlap, mask, self.margin, self.box)
        windows.sort(key=lambda window: window[dim].start)
        where = self.sw_device or image.device
        weight = compute_importance_map(roi_size, self.mode, self.sigma_scale, where, image.dtype)
        # Without foreground, one window runs all the same: only the network knows how many classes there are.
        visited = windows or [tuple(slice(0, side) for side in roi_size)]
        out = slab = None
        for window, logits in run_windows(self, image, visited, network):
            if out is None:
                out = make_output(logits, image, device, self.reduce, self.background)
                slab = Slab(out, logits.shape[1], image.dtype, visited, dim, self.reduce)
            if windows:
                slab.add(window, (logits * weight).to(logits.dtype).to(device), weight.to(device))
        slab.finish()
        return out[inside]


class SlabSliceInferer(SliceInferer, SlabInferer):
    """MONAI's ``SliceInferer``, a 2-D network slice by slice over a volume, with the options of :class:`SlabInferer`.

    Args:
        spatial_dim: the axis that slices are cut across; memory is least with the same ``slab_dim``.
        args: ``roi_size`` of two sides, then as for :class:`SlabInferer`.
        kwargs: the same, by name.

    Example::

        >>> inferer = SlabSliceInferer(2, (16, 16), slab_dim=2, reduce="argmax")
        >>> inferer(torch.ones(1, 1, 16, 16, 5), lambda x: torch.cat([-x, x], 1)).sum()
        tensor(1280)
    """


def labels_only(low_memory: object, save_probabilities: object, labels: Mapping, out_channels: int) -> bool:
    """What ``low_memory`` of a bundle says, refused where labels can't be read from the largest channel.

    Args:
        low_memory: keep the labels of a volume alone, not its logits; restore them to nearest neighbours.
        save_probabilities: whether probabilities shall be saved.
        labels: names of the values of a label map, background included.
        out_channels: of the network.

    Raises:
        InputError: ``low_memory`` and probabilities are wanted, or the network has not one channel for each label.

    Example::

        >>> labels_only("true", False, {"0": "background", "1": "liver"}, 2)
        True
    """
    if not flag(low_memory):
        return False
    if flag(save_probabilities):
        raise InputError("low_memory keeps no probabilities; set low_memory or save_probabilities to false.")
    if not 1 < out_channels == len(labels):
        raise InputError(
            f"low_memory needs one output channel for each label, and here are {out_channels} for {len(labels)} "
            "labels; set low_memory to false."
        )
    return True


class Slab:
    """Weighted sums of logits over the slices that windows may still add to; what is before them is in ``out``.

    Windows come in the order of their start along ``dim``, so a window's depth of slices is enough.

    Args:
        out: the result ``(1, k or 1, *)``, background as yet.
        channels: k.
        dtype: of the sums.
        windows: all that will be added; slabs are as wide as the box around them.
        dim: the spatial axis that slabs are cut across.
        reduce: None or ``"argmax"``.
    """

    def __init__(
        self, out: torch.Tensor, channels: int, dtype: torch.dtype, windows: list[Window], dim: int, reduce: str | None
    ) -> None:
        self.corner = [min(s.start for s in sides) for sides in zip(*windows)]
        size = [max(s.stop for s in sides) - low for sides, low in zip(zip(*windows), self.corner)]
        box = [slice(low, low + side) for low, side in zip(self.corner, size)]
        self.dim, self.reduce, self.position = dim, reduce, 0
        self.depth = size[dim] = windows[0][dim].stop - windows[0][dim].start
        self.sums = torch.zeros((1, channels, *size), dtype=dtype, device=out.device)
        self.weights = torch.zeros((1, 1, *size), dtype=dtype, device=out.device)
        # Views with the slices first.
        self.out = out[(..., *box)].movedim(2 + dim, 0)
        self.slices = [sums.movedim(2 + dim, 0) for sums in (self.sums, self.weights)]

    def add(self, window: Window, logits: torch.Tensor, weight: torch.Tensor) -> None:
        """Add the weighted ``logits`` ``(1, k, *window)`` and their ``weight`` ``(*window)``."""
        self.finish(window[self.dim].start - self.corner[self.dim])
        place = [slice(side.start - low, side.stop - low) for side, low in zip(window, self.corner)]
        place[self.dim] = slice(0, self.depth)
        self.sums[(..., *place)] += logits
        self.weights[(..., *place)] += weight

    def finish(self, stop: int | None = None) -> None:
        """Write the slices before ``stop`` to ``out``, as no window will reach them, and make room for as many."""
        step = self.depth if stop is None else min(stop - self.position, self.depth)
        sums, weights = self.slices
        for i in range(step):  # one by one: what a step takes is small
            values = sums[i].div_(weights[i])
            if self.reduce:
                values = values.argmax(1, keepdim=True).to(self.out.dtype)
            goal = self.out[self.position + i]
            goal.copy_(torch.where(weights[i] > 0, values, goal))  # where no window ran, 0 / 0 gave NaN
        for kept in self.slices if step else ():
            for i in range(0, self.depth, step):  # by steps, as source and goal must not overlap
                moved = kept[i + step : i + 2 * step]
                kept[i : i + len(moved)] = moved
            kept[self.depth - step :] = 0
        self.position = self.position + step if stop is None else stop


class NotCoveredError(Exception):
    """Why MONAI's own code has to do it."""


def check_covered(inferer: SlidingWindowInferer, kwargs: Mapping[str, Any]) -> None:
    """Raise NotCoveredError on settings that only MONAI's code knows."""
    if kwargs.get("buffer_steps", inferer.buffer_steps):
        raise NotCoveredError("buffer_steps is set")
    if inferer.with_coord:
        raise NotCoveredError("with_coord is set")
    if kwargs.get("condition") is not None:
        raise NotCoveredError("a condition is given")


def check_logits(logits: Any, roi_size: Sequence[int]) -> None:
    """Raise NotCoveredError unless ``logits`` is one tensor of the window's size."""
    if not isinstance(logits, torch.Tensor):
        raise NotCoveredError("the network returns more than one tensor")
    if tuple(logits.shape[2:]) != tuple(roi_size):
        raise NotCoveredError(f"the network returns size {tuple(logits.shape[2:])} for windows of {tuple(roi_size)}")


def check_axis(axis: int, spatial_dims: int) -> int:
    """``axis`` counted from the first."""
    if not -spatial_dims <= axis < spatial_dims:
        raise ValueError(f"slab_dim is {axis}, but there are {spatial_dims} spatial axes.")
    return axis % spatial_dims


def find_device(inferer: SlidingWindowInferer, inputs: torch.Tensor, kwargs: Mapping[str, Any]) -> torch.device:
    """Where MONAI's inferer leaves its result."""
    device = kwargs.get("device", inferer.device)
    if device is None and inferer.cpu_thresh is not None and inputs.shape[2:].numel() > inferer.cpu_thresh:
        device = "cpu"
    return torch.device(device or inputs.device)


def find_foreground(image: torch.Tensor, rule: float | Callable | None) -> torch.Tensor | None:
    """The mask ``(*)`` of ``image`` ``(1, c, *)``, None without a rule."""
    if rule is None:
        return None
    mask = rule(image[0]) if callable(rule) else image[0] != rule
    return mask.any(0)


def pad_to(
    roi_size: Sequence[int], image: torch.Tensor, mask: torch.Tensor | None, mode: str, value: float
) -> tuple[torch.Tensor, torch.Tensor | None, Window]:
    """Image ``(1, c, *)`` and mask ``(*)`` with at least ``roi_size`` voxels, as MONAI pads; and where the image is."""
    missing = [max(roi - side, 0) for roi, side in zip(roi_size, image.shape[2:])]
    inside = (..., *(slice(gap // 2, gap // 2 + side) for gap, side in zip(missing, image.shape[2:])))
    if any(missing):
        pad = [part for gap in reversed(missing) for part in (gap // 2, gap - gap // 2)]
        image = F.pad(image, pad, mode=mode, value=value)
        mask = None if mask is None else F.pad(mask, pad)  # padding is no foreground, whatever its value
    return image, mask, inside


def find_windows(
    size: Sequence[int],
    roi_size: Sequence[int],
    overlap: Sequence[float] | float,
    mask: torch.Tensor | None = None,
    margin: int = 0,
    box: bool = True,
) -> list[Window]:
    """The windows to run in an image of ``size``, in MONAI's order; with ``mask``, those of the rule in SlabInferer.

    Example::

        >>> mask = torch.arange(20) > 16
        >>> find_windows((20,), (4,), 0.5, mask)
        [(slice(16, 20, None),)]
        >>> find_windows((20,), (4,), 0.5, mask, margin=2)
        [(slice(15, 19, None),), (slice(16, 20, None),)]
    """
    overlap = ensure_tuple_rep(overlap, len(size))
    if not all(0 <= part < 1 for part in overlap):
        raise ValueError(f"overlap is {overlap}; give 0 or more and less than 1.")
    start, length = [0] * len(size), list(size)
    if mask is not None and not mask.any():
        return []
    if mask is not None and box:
        low, high = generate_spatial_bounding_box(mask[None], margin=margin, allow_smaller=True)
        length = [max(stop - first, roi) for first, stop, roi in zip(low, high, roi_size)]
        # Around the middle of the foreground, as far as the image goes.
        middle = [(first + stop - side) // 2 for first, stop, side in zip(low, high, length)]
        start = [min(max(first, 0), whole - side) for first, whole, side in zip(middle, size, length)]
    interval = _get_scan_interval(length, roi_size, len(size), overlap)
    windows = [
        tuple(slice(first + int(side.start), first + int(side.stop)) for first, side in zip(start, window))
        for window in dense_patch_slices(length, roi_size, interval)
    ]
    return windows if mask is None else [window for window in windows if mask[widen(window, margin)].any()]


def widen(window: Window, margin: int) -> Window:
    """``window`` with ``margin`` voxels on each side."""
    return tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in window)


def run_windows(
    inferer: SlidingWindowInferer, image: torch.Tensor, windows: list[Window], network: Callable
) -> Iterator[tuple[Window, torch.Tensor]]:
    """Each window with its logits ``(1, k, *roi_size)``, ``sw_batch_size`` at a time, and a progress bar if wanted."""
    with tqdm(total=len(windows), unit="window", disable=not (inferer.progress and is_first_process())) as bar:
        for first in range(0, len(windows), inferer.sw_batch_size):
            batch = windows[first : first + inferer.sw_batch_size]
            cuts = [image[(..., *window)] for window in batch]
            logits = network((cuts[0] if len(cuts) == 1 else torch.cat(cuts)).to(inferer.sw_device or image.device))
            check_logits(logits, cuts[0].shape[2:])
            yield from zip(batch, logits.split(1))
            bar.update(len(batch))


def make_output(
    logits: torch.Tensor, image: torch.Tensor, device: torch.device, reduce: str | None, background: Sequence | None
) -> torch.Tensor:
    """Background for ``image`` ``(1, c, *)``: ``(1, 1, *)`` labels or ``(1, k, *)`` logits, k from ``logits``."""
    classes, size = logits.shape[1], image.shape[2:]
    if background is not None and len(background) != classes:
        raise InputError(
            f"background has {len(background)} values; give one for each of the network's {classes} classes."
        )
    if reduce:
        if classes == 1:
            raise InputError(
                "The largest of one class is always class 0; with a network of one class, leave reduce null."
            )
        return torch.zeros((1, 1, *size), dtype=label_type(classes), device=device)
    values = BACKGROUND[:1] + BACKGROUND[1:] * (classes - 1) if background is None else background
    value = torch.tensor(values, dtype=image.dtype, device=device)
    return value.reshape(1, classes, *[1] * len(size)).repeat(1, 1, *size)


def label_type(classes: int) -> torch.dtype:
    """The smallest integer type that all writers take and ``classes`` labels fit."""
    return torch.uint8 if classes <= 2**8 else torch.int16 if classes <= 2**15 else torch.int32


def reduce_each(output: Any, reduce: str | None) -> Any:
    """``output`` of MONAI's inferer, each of its tensors reduced."""
    if reduce is None:
        return output
    if isinstance(output, Mapping):
        return {key: reduce_each(value, reduce) for key, value in output.items()}
    if not isinstance(output, torch.Tensor):
        return tuple(reduce_each(value, reduce) for value in output)
    return output.argmax(1, keepdim=True).to(label_type(output.shape[1]))
