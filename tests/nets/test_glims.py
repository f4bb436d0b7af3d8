from __future__ import annotations

import pytest
import torch
from golden_files import Golden
from network_tester import NetworkTester

from hybrid_nets import GLIMS


class TestGLIMS(NetworkTester):
    golden = ("glims_paper_fs12", "glims_released_fs12")
    golden_tolerance = 2e-4
    good_sizes = ((64, 64, 32), (32, 64, 96))
    bad_sizes = ((64, 97, 64), (64, 64, 16))

    def build(self, **options: object) -> GLIMS:
        return GLIMS(
            self.in_channels, self.out_channels, **{"img_size": self.good_sizes[0], "feature_size": 12, **options}
        )

    def build_golden(self, golden: Golden) -> GLIMS:
        c = golden.config
        network = GLIMS(
            c["in_channels"],
            c["out_channels"],
            c["img_size"],
            c["feature_size"],
            deep_supervision=True,
            variant=c["variant"],
        )
        return network.train()  # nothing here differs in training but the number of outputs

    def test_deep_supervision(self) -> None:
        network, x = self.build(deep_supervision=True), self.example()
        assert [tuple(y.shape[2:]) for y in network.train()(x)] == [(64, 64, 32), (32, 32, 16), (16, 16, 8), (8, 8, 4)]
        assert network.eval()(x).shape == (1, 3, 64, 64, 32)
        assert isinstance(self.build().train()(x), torch.Tensor)

    def test_auxiliary_heads_get_gradients(self) -> None:
        network = self.build(deep_supervision=True).train()
        sum(y.square().mean() for y in network(self.example())).backward()
        assert all(p.grad.abs().sum() > 0 for p in network.parameters())

    @pytest.mark.parametrize("variant", ["paper", "released"])
    def test_checkpointing_changes_nothing_but_memory(self, variant: str) -> None:
        plain = self.build(variant=variant, drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.1)
        saving = self.build(variant=variant, drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.1, use_checkpoint=True)
        saving.load_state_dict(plain.state_dict())
        results = []
        for network in (plain, saving):
            torch.manual_seed(1)
            y = network.train()(self.example())
            y.square().mean().backward()
            results.append((y, {n: p.grad for n, p in network.named_parameters()}))
        assert torch.equal(results[0][0], results[1][0])
        for name, grad in results[0][1].items():
            torch.testing.assert_close(grad, results[1][1][name], msg=name)

    def test_checkpointing_saves_memory(self) -> None:
        kept = []
        for use_checkpoint in (False, True):
            sizes: list[int] = []
            # In float64: in float32 on a CPU the convolutional blocks keep no more than their input anyway.
            network = self.build(use_checkpoint=use_checkpoint).train().double()
            with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
                network(self.example().double())
            kept.append(sum(sizes))
        assert kept[1] < 0.5 * kept[0]

    def test_construction_errors(self) -> None:
        with pytest.raises(
            ValueError, match=r"img_size: axis 1 \(height\) has size 97, not a multiple of 32; crop to 96 or pad to 128"
        ):
            GLIMS(4, 3, img_size=(96, 97, 96))
        with pytest.raises(ValueError, match="variant"):
            GLIMS(4, 3, variant="original")
        with pytest.raises(ValueError, match="num_heads must divide"):
            GLIMS(4, 3, feature_size=10)
        with pytest.raises(ValueError, match="img_size needs 3 entries"):
            GLIMS(4, 3, img_size=(96, 96))

    def test_loads_a_checkpoint_of_another_img_size(self) -> None:
        small, large = self.build(img_size=32).eval(), self.build(img_size=64).eval()
        large.load_state_dict(small.state_dict())
        with torch.no_grad():  # resampled on loading or on calling: the same
            x = self.example((64, 64, 64))
            torch.testing.assert_close(large(x), small(x), rtol=1e-4, atol=1e-5)

    def test_variants_share_checkpoints_and_differ(self) -> None:
        paper, released = self.build().eval(), self.build(variant="released").eval()
        released.load_state_dict(paper.state_dict())
        with torch.no_grad():
            assert not torch.allclose(paper(self.example()), released(self.example()), rtol=1e-2)


def test_parameters_that_are_gone() -> None:
    """Of the released network's 47,163,349 parameters 10,504 cannot change its output and do not exist here."""
    network = GLIMS(4, 3, deep_supervision=True)
    widths = [24 * 2**level for level in range(5)]  # channels at full resolution and below
    blocks = [c for c in widths[:4] for _ in range(4)]  # a DACB per entry: two in the encoder, two in the decoder
    unused_activations = len(blocks)  # each DACB holds a PReLU that no path runs through
    # Biases that the normalisation after the convolution subtracts again with the channel's mean:
    dacb = sum(3 * c + 2 * c + c for c in blocks)  # three depthwise convolutions, the widening one, the narrowing one
    stem = widths[0]
    down = sum(2 * c for c in widths[:4])
    up_and_fuse = sum(2 * c for c in widths[:4])
    deepest_fuse = widths[4]
    gone = unused_activations + dacb + stem + down + up_and_fuse + deepest_fuse
    assert gone == 10_504
    assert sum(p.numel() for p in network.parameters()) == 47_163_349 - gone
    # The auxiliary heads (1³ convolutions) exist only where deep supervision trains them.
    assert sum(p.numel() for p in GLIMS(4, 3).parameters()) == 47_163_349 - gone - 3 * (48 + 96 + 192 + 3)


def test_released_spatial_gate_is_dead_there_only() -> None:
    """The released variant keeps the gate's convolution and scale for its checkpoints, and they get no gradient."""
    network = GLIMS(1, 1, 64, 12, variant="released")
    network(torch.randn(1, 1, 64, 64, 64)).square().mean().backward()
    dead = {n for n, p in network.named_parameters() if p.grad is None}
    assert dead == {f"csab{i}.{name}" for i in range(1, 6) for name in ("conv.weight", "norm.weight")}
