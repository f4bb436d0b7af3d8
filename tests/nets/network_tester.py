"""What every network here must do. A test module of a network subclasses :class:`NetworkTester` and fills in the top.

Tiny configurations: what is tested does not depend on size.
"""

from __future__ import annotations

import re

import onnxruntime
import pytest
import torch
from golden_files import Golden
from torch import nn

from hybrid_nets import convert_released

TOLERANCE = 1e-4  # of the largest output: another way of computing adds up in another order


class NetworkTester:
    golden: tuple[str, ...] = ()  # names of files in tests/golden
    golden_tolerance = 5e-5
    in_channels, out_channels = 2, 3
    good_sizes: tuple[tuple[int, ...], ...] = ()  # the first one is what the network is built for
    bad_sizes: tuple[tuple[int, ...], ...] = ()
    without_effect = r"(?!)"  # parameters that can't change the output, by name; nothing unless a docstring says so

    def build(self, **options: object) -> nn.Module:
        """The network in its smallest form."""
        raise NotImplementedError

    def build_complete(self) -> nn.Module:
        """The same, with nothing in it that training may leave out by chance."""
        return self.build()

    def build_golden(self, golden: Golden) -> nn.Module:
        """The network of a golden file, in the mode that gives all its outputs."""
        raise NotImplementedError

    def example(self, size: tuple[int, ...] | None = None, batch: int = 1) -> torch.Tensor:
        torch.manual_seed(0)
        return torch.randn(batch, self.in_channels, *(size or self.good_sizes[0]))

    def outputs(self, result: torch.Tensor | list[torch.Tensor]) -> list[torch.Tensor]:
        return result if isinstance(result, list) else [result]

    def test_golden(self) -> None:
        for name in self.golden:
            golden = Golden(name)
            network = self.build_golden(golden)
            network.load_state_dict(convert_released(network, golden.state_dict()))
            with torch.no_grad():
                outputs = self.outputs(network(golden.input()))
            errors = [golden.error(i, output) for i, output in enumerate(outputs)]
            assert f"out{len(outputs)}_shape" not in golden.arrays
            assert max(errors) < self.golden_tolerance, (name, errors)

    def test_sizes(self) -> None:
        network = self.build().eval()
        for size in self.good_sizes:
            with torch.no_grad():
                assert network(self.example(size)).shape == (1, self.out_channels, *size)
        for size in self.bad_sizes:
            with pytest.raises(ValueError, match="not a multiple of .*pad to"):
                network(self.example(size))

    def test_wrong_channels(self) -> None:
        with pytest.raises(ValueError, match=f"{self.in_channels}"):
            self.build()(self.example()[:, :1])

    def test_every_parameter_gets_a_gradient(self) -> None:
        network = self.build_complete().train()
        sum(output.square().mean() for output in self.outputs(network(self.example(batch=2)))).backward()
        dead = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not [name for name in dead if not re.search(self.without_effect, name)]

    def test_samples_do_not_mix(self) -> None:
        network, x = self.build().eval(), self.example(batch=2)
        with torch.no_grad():
            together, alone = network(x)[1:], network(x[1:])
        assert (together - alone).abs().max() <= TOLERANCE * alone.abs().max()

    def test_save_and_load(self, tmp_path) -> None:
        network, other = self.build().eval(), self.build().eval()
        torch.save(network.state_dict(), tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        with torch.no_grad():
            assert torch.equal(network(self.example()), other(self.example()))

    @pytest.mark.parametrize("way", ["script", "trace", "export", "onnx"])
    @pytest.mark.filterwarnings(
        "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
    )
    def test_exported_network_agrees(self, way: str, tmp_path) -> None:
        network, x, path = self.build().eval(), self.example(), str(tmp_path / f"net.{way}")
        with torch.no_grad():
            expected, result = network(x), EXPORTS[way](network, x, path)
        assert (result - expected).abs().max() <= TOLERANCE * expected.abs().max()


class LeanNetworkTester(NetworkTester):
    """For a network whose parameters all matter, but those that it names."""

    def test_gradients_are_more_than_rounding_noise(self) -> None:
        network = self.build_complete().double().train()
        outputs = self.outputs(network(self.example(batch=2).double()))
        sum(output.square().mean() for output in outputs).backward()
        sizes = {name: p.grad.abs().max() for name, p in network.named_parameters()}
        noise = {name for name, size in sizes.items() if size < 1e-10 * max(sizes.values())}
        assert noise == {name for name in sizes if re.search(self.without_effect, name)}


def run_script(network: nn.Module, x: torch.Tensor, path: str) -> torch.Tensor:
    torch.jit.script(network).save(path)
    return torch.jit.load(path)(x)


def run_trace(network: nn.Module, x: torch.Tensor, path: str) -> torch.Tensor:
    torch.jit.trace(network, x).save(path)
    return torch.jit.load(path)(x)


def run_export(network: nn.Module, x: torch.Tensor, path: str) -> torch.Tensor:
    torch.export.save(torch.export.export(network, (x,)), path + ".pt2")
    return torch.export.load(path + ".pt2").module()(x)


def run_onnx(network: nn.Module, x: torch.Tensor, path: str) -> torch.Tensor:
    torch.onnx.export(network, (x,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


EXPORTS = {"script": run_script, "trace": run_trace, "export": run_export, "onnx": run_onnx}
