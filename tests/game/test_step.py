"""One update: how often each network runs, and both gradients against ordinary backward passes."""

import copy

import pytest
import torch
from tiny_games import BATCH, LATENT, SIZE, VIEWS, count_calls, gradients, images, make, source
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from galirep.game import augmentation
from galirep.game.expression import Expr, parse
from galirep.game.masks import erase, mix, random_boxes
from galirep.game.objectives import OBJECTIVES
from galirep.game.step import Rules, compute_gradients, evaluate_expressions
from galirep.game.variant import Penalty, Variant
from galirep.game.variants import GALI_4, VARIANTS
from galirep.game.view_losses import VIEW_LOSSES
from galirep.game.views import draw as draw_view


def assert_same(got, expected):
    """Equal up to rounding: a bias before BatchNorm has no gradient but for that."""
    assert got.keys() == expected.keys()
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, g in expected.items():
        torch.testing.assert_close(
            got[name], g, rtol=1e-4, atol=1e-5 * largest, msg=lambda text, name=name: f"{name}: {text}"
        )


# --- both gradients


def reference(game, x, generator, objective="product", penalty_weight=1.0, noise=0.0, augmentations=(), known=None):
    """Return the losses of D and of G and E written plainly: a call of D for each tuple, no detached leaves."""
    cache = {Expr("x"): x, Expr("z"): torch.randn(BATCH, LATENT, generator=generator)}
    cache |= dict(known or {})
    for name in game.variant.masks:
        cache[Expr(name)] = random_boxes(BATCH, SIZE, generator)
    drawn = {name: draw_view(VIEWS, BATCH, SIZE, generator, x.device, 1) for name in game.variant.views}

    def value(e):
        if e in cache:
            return cache[e]
        args = [value(a) for a in e.args if a.kind != "view"]
        if e.head in ("E", "mu"):
            mu, log_sigma = game.encoder(*args)
            if e.head == "E":
                mu = mu + log_sigma.exp() * torch.randn(mu.shape, generator=generator, dtype=mu.dtype)
            cache[e] = mu
        elif e.head == "View":
            cache[e] = drawn[e.args[1].head](*args)
        elif e.head == "Project":
            hidden = args[0]
            for block in game.encoder.blocks.values():
                hidden = block(hidden)
            cache[e] = game.projector(hidden.flatten(1))
        else:
            cache[e] = {"G": game.generator, "M": game.extract, "Erase": erase, "Mix": mix}[e.head](*args)
        return cache[e]

    values = {e: value(e) for e in game.variant.expressions}
    seen = {e: values[e] for e in game.variant.variables}
    if augmentations:
        augmented = augmentation.draw(augmentations, BATCH, SIZE, generator, x.device)
        seen = {e: augmented(v) if e.kind == "image" else v for e, v in seen.items()}
    if noise:
        seen = {
            e: v + noise * torch.randn(v.shape, generator=generator) if e.kind == "image" else v
            for e, v in seen.items()
        }

    def losses(detach):
        rows = []
        for row in game.variant.tuples:
            parts = [game.discriminator.trunks[e.kind](seen[e].detach() if detach else seen[e]) for e in row]
            rows.append(game.discriminator.last(game.discriminator.hidden(torch.cat(parts, 1))))
        return torch.stack(rows)

    d_loss, g_loss = OBJECTIVES[objective]
    distances = {"l1": lambda a, b: (a - b).abs().mean(), "l2": lambda a, b: (a - b).square().mean(), **VIEW_LOSSES}
    penalty = sum(p.weight * distances[p.distance](values[a], values[b]) for p, a, b in game.variant.penalized)
    return d_loss(losses(detach=True)), g_loss(losses(detach=False)) + penalty_weight * penalty


@pytest.mark.parametrize(
    ("variant", "objective", "noise", "augmentations"),
    [
        *((v, "product", 0.1, ()) for v in VARIANTS),
        ("gali-4", "minimax", 0.0, ()),
        ("gali-8", "misclassification", 0.0, ()),
        ("gali-4", "relativistic", 0.0, ()),
        *((v, "product", 0.1, ("color", "translation", "cutout")) for v in ("ali", "gali-8", "gali-mix", "gali-pt")),
    ],
)
def test_gradients_are_those_of_ordinary_backward_passes(variant, objective, noise, augmentations):
    game = make(variant)
    plain = copy.deepcopy(game)
    statistics = compute_gradients(
        game, images(), source(), Rules(objective, penalty_weight=0.3, augment=augmentations), noise=noise
    )

    _, loss_g = reference(plain, images(), source(), objective, 0.3, noise, augmentations)
    plain.discriminator.requires_grad_(False)
    loss_g.backward()  # through D, whose weights take no part
    assert all(p.grad is None for p in plain.discriminator.parameters())
    plain.discriminator.requires_grad_(True)
    loss_d, _ = reference(plain, images(), source(), objective, 0.3, noise, augmentations)
    to_eg = {n: gradients(plain.players()[n]) for n in "EG"}
    loss_d.backward()

    torch.testing.assert_close(statistics["loss_d"], loss_d.detach())
    torch.testing.assert_close(statistics["loss_g"] + statistics.get("penalty", 0), loss_g.detach())
    assert_same(gradients(game.discriminator), gradients(plain.discriminator))
    for name in "EG":
        assert_same(gradients(game.players()[name]), to_eg[name])
        assert all(torch.equal(p.grad, to_eg[name][k]) for k, p in plain.players()[name].named_parameters()), (
            "D's loss reached E or G in the reference"
        )


OWN = {
    "latents": Variant(
        "own", GALI_4.classes, penalties=(Penalty("l2", "z", "mu(G(z))", 0.7), Penalty("l1", "z", "E(G(z))", 0.2))
    ),
    "means": Variant(
        "own", (("x", "mu(x)"), ("G(z)", "z"), ("x", "E(x)")), penalties=(Penalty("l2", "mu(x)", "E(x)"),)
    ),
    "views": Variant("own", (("x", "E(T1(x))"), ("G(z)", "z"), ("T2(G(z))", "E(M1(T1(x)))"))),
    "vicreg": Variant(
        "own", GALI_4.classes, penalties=(Penalty("vicreg", "E(T1(x))", "E(T2(x))"), Penalty("l2", "x", "G(E(x))"))
    ),
    "info-nce": Variant("own", GALI_4.classes, penalties=(Penalty("info-nce", "mu(x)", "mu(T1(x))", 0.3),)),
    "views of samples": Variant("own", GALI_4.classes, penalties=(Penalty("vicreg", "E(G(z))", "E(T1(G(z)))", 0.1),)),
}


@pytest.mark.parametrize("name", OWN)
def test_in_float64_gradients_are_those_of_ordinary_backward_passes(name):
    game = make(OWN[name], double=True)
    plain = copy.deepcopy(game)
    x, known = images().double(), {Expr("z"): torch.randn(BATCH, LATENT, generator=source(3), dtype=torch.float64)}
    statistics = compute_gradients(game, x, source(), Rules(penalty_weight=0.3), known=known)

    _, loss_g = reference(plain, x, source(), penalty_weight=0.3, known=known)
    plain.discriminator.requires_grad_(False)
    loss_g.backward()
    plain.discriminator.requires_grad_(True)
    loss_d, _ = reference(plain, x, source(), known=known)
    rest = {n: gradients(net) for n, net in plain.trained().items() if n != "D"}
    loss_d.backward()
    torch.testing.assert_close(statistics["loss_g"] + statistics.get("penalty", 0), loss_g.detach(), rtol=0, atol=1e-12)
    for n, expected in (*rest.items(), ("D", gradients(plain.discriminator))):
        got = gradients(game.trained()[n])
        assert got.keys() == expected.keys() and any(g.abs().max() > 1e-6 for g in got.values())
        for key, g in expected.items():
            torch.testing.assert_close(got[key], g, rtol=1e-9, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize(
    ("name", "e", "g"), [("latents", 3, 3), ("means", 1, 1), ("views", 2, 1), ("vicreg", 5, 3), ("info-nce", 4, 3)]
)
def test_e_runs_once_for_the_sample_the_mean_and_the_hidden_layer_of_an_image(name, e, g):
    game = make(OWN[name])
    calls = count_calls(game)
    compute_gradients(game, images(), source(), Rules())
    assert (calls["E"], calls["G"]) == (e, g)


def test_the_sample_is_about_the_mean_and_the_mean_draws_nothing():
    game = make("gali-4")
    asked = [parse("mu(x)"), parse("E(x)")]
    values = evaluate_expressions(game, images(), source(), asked)
    state = source()
    torch.randn(BATCH, LATENT, generator=state)  # z
    mu, log_sigma = game.encoder(images())
    torch.testing.assert_close(values[asked[0]], mu, rtol=0, atol=0)
    torch.testing.assert_close(
        values[asked[1]], torch.addcmul(mu, log_sigma.exp(), torch.randn(mu.shape, generator=state))
    )


def test_views_differ_from_image_to_image_and_are_the_same_wherever_they_occur():
    game = make(Variant("own", (("x", "E(T1(x))"), ("G(z)", "z"), ("T1(G(z))", "E(T2(x))"))))
    same = {parse("x"): images()[:1].expand(BATCH, -1, -1, -1), parse("G(z)"): images()[:1].expand(BATCH, -1, -1, -1)}
    t1, t2, also = (parse(t) for t in ("T1(x)", "T2(x)", "T1(G(z))"))
    values = evaluate_expressions(game, images(), source(), [t1, t2, also], same)
    assert torch.equal(values[t1], values[also]) and not torch.equal(values[t1], values[t2])
    assert all((values[t1][0] - values[t1][i]).abs().max() > 1e-3 for i in range(1, BATCH))


def test_a_box_under_a_view_is_in_the_views_frame():
    game = make(Variant("own", (("x", "E(M1(T1(x)))"), ("G(z)", "z"))))
    view, erased, mask = parse("T1(x)"), parse("M1(T1(x))"), parse("M1")
    values = evaluate_expressions(game, images(), source(), [view, erased, mask])
    assert torch.equal(values[erased], torch.where(values[mask], torch.tensor(-2.0), values[view]))


def test_views_of_real_images_count_as_real_for_batch_norm_and_views_of_samples_do_not():
    game = make(OWN["vicreg"])
    alone = copy.deepcopy(game.encoder)
    compute_gradients(game, images(), source(), Rules())
    assert int(game.encoder.state_dict()["blocks.conv1.1.num_batches_tracked"]) == 3  # x, T1(x), T2(x)
    game = make(OWN["views of samples"])
    compute_gradients(game, images(), source(), Rules())
    alone(images())
    for (key, one), other in zip(game.encoder.state_dict().items(), alone.state_dict().values(), strict=True):
        assert torch.equal(one, other), key


def test_an_update_of_d_alone_leaves_the_projector_alone():
    game = make(OWN["vicreg"])
    compute_gradients(game, images(), source(), Rules(), d_only=True)
    assert all(p.grad is None for p in game.projector.parameters()) and list(game.players()) == ["E", "G", "D"]


def test_spectral_norm_takes_part_in_the_gradient_and_moves_by_one_iteration():
    game = make("gali-4", "sn")
    plain = copy.deepcopy(game)
    compute_gradients(game, images(), source(), Rules())
    with nn.utils.parametrize.cached():
        loss_d, _ = reference(plain, images(), source())
    loss_d.backward()
    assert_same(gradients(game.discriminator), gradients(plain.discriminator))
    for (name, one), other in zip(game.discriminator.named_buffers(), plain.discriminator.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_gradients_are_replaced_not_added():
    game, reference_game = make(), make()
    compute_gradients(reference_game, images(1), source(1), Rules())
    for net in (*game.players().values(),):
        for p in net.parameters():
            p.grad = torch.full_like(p, 1e6)
    compute_gradients(game, images(1), source(1), Rules())
    for name, net in game.players().items():
        assert_same(gradients(net), gradients(reference_game.players()[name]))


@pytest.mark.parametrize("variant", ("gali-4", "gali-pt", "gali-mix"))
def test_an_update_of_d_alone_leaves_e_and_g_as_they_are(variant):
    game, full = make(variant), make(variant)
    for net in (game.encoder, game.generator):
        for p in net.parameters():
            p.grad = torch.full_like(p, 3.0)
    needed = []
    game.generator.register_forward_hook(
        lambda m, args, out: needed.append(torch.is_grad_enabled() or out.requires_grad)
    )
    statistics = compute_gradients(game, images(), source(), Rules(), d_only=True)
    assert needed and not any(needed)
    assert all((p.grad == 3).all() for net in (game.encoder, game.generator) for p in net.parameters())
    compute_gradients(full, images(), source(), Rules())
    assert_same(gradients(game.discriminator), gradients(full.discriminator))
    assert set(statistics) == {"loss_d", "probs"}


def test_an_update_of_d_alone_computes_no_side_of_a_penalty():
    game = make("alice")
    calls = count_calls(game)
    compute_gradients(game, images(), source(), Rules(), d_only=True)
    assert calls["G"] == 1


def test_m_gets_no_weight_gradient_but_passes_one_to_g():
    game = make("gali-4-l2-features")
    game.extract.requires_grad_(False)
    compute_gradients(game, images(), source(), Rules(penalty_weight=1.0))
    with_m = gradients(game.generator)
    assert all(p.grad is None for p in game.extract.parameters())
    other = make("gali-4-l2-features")
    compute_gradients(other, images(), source(), Rules(penalty_weight=0.0))
    assert any((with_m[k] - g).abs().max() > 1e-6 for k, g in gradients(other.generator).items())


def test_statistics_of_an_update():
    game = make("alice", "r1r2")
    statistics = compute_gradients(game, images(), source(), Rules(r1_gamma=1.0), noise=0.0)
    assert set(statistics) == {"loss_d", "loss_g", "probs", "penalty", "r1"}
    assert all(isinstance(v, torch.Tensor) and not v.requires_grad for v in statistics.values())
    torch.testing.assert_close(statistics["probs"].sum(1), torch.ones(2))
    reached = evaluate_expressions(game, images(), source(), [parse("x"), parse("G(E(x))")])
    torch.testing.assert_close(
        statistics["penalty"], (reached[parse("x")] - reached[parse("G(E(x))")]).square().mean().detach()
    )


class NoHostSync(TorchDispatchMode):
    """A mode that fails where a value of a tensor is read, which on a GPU makes the host wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in (
            "_local_scalar_dense",
            "nonzero",
            "item",
            "equal",
            "masked_select",
            "unique_dim",
            "_unique2",
        ), f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("variant", "regularizer", "rules"),
    [("gali-mix", "sn", Rules()), ("gali-pt", "r1r2", Rules(r1_gamma=1.0)), ("gali-4", "none", Rules("relativistic"))]
    + [("gali-8", "sn-scale+r1r2", Rules(r1_gamma=1.0, augment=("color", "translation", "cutout")))]
    + [("gali-pt", "r1r2", Rules(r1_gamma=1.0, r1_on=on, r1_features=True)) for on in ("pairs", "all-pairs")]
    + [(OWN[name], "none", Rules()) for name in ("views", "vicreg", "info-nce")],
)
def test_nothing_waits_for_the_device(variant, regularizer, rules):
    game = make(variant, regularizer)
    with NoHostSync():
        compute_gradients(game, images(), source(), rules, noise=0.1)
        compute_gradients(game, images(), source(), rules, noise=0.1, d_only=True)
    with pytest.raises(AssertionError, match="waits for the device"), NoHostSync():
        images().mean().item()


def test_running_statistics_of_e_follow_the_real_stream_alone():
    game = make("gali-4")
    alone = copy.deepcopy(game.encoder)
    compute_gradients(game, images(), source(), Rules())
    compute_gradients(game, images(1), source(), Rules(), d_only=True)
    alone(images()), alone(images(1))
    norms = [m for m in game.encoder.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    norms_alone = [m for m in alone.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    for norm, norm_alone in zip(norms, norms_alone, strict=True):
        torch.testing.assert_close(norm.running_mean, norm_alone.running_mean, rtol=0, atol=0)
        torch.testing.assert_close(norm.running_var, norm_alone.running_var, rtol=0, atol=0)
        assert norm.momentum == norm_alone.momentum == 0.1


def test_noise_is_shared_by_the_tuples_of_a_variable_and_only_on_images():
    game = make("gali-4")
    seen = {"image": [], "latent": []}
    for kind, trunk in game.discriminator.trunks.items():
        trunk.register_forward_hook(lambda m, args, out, kind=kind: seen[kind].append(args[0].detach()))
    for noise in (0.0, 0.5):
        compute_gradients(game, images(), source(), Rules(), noise=noise)
    clean, noisy = seen["image"][:2], seen["image"][2:]
    # x once for its two tuples; G(z), G(E(G(z)))
    assert [len(v) for v in clean] == [len(v) for v in noisy] == [BATCH, 2 * BATCH]
    added = torch.cat(noisy) - torch.cat(clean)
    assert (
        float(added.std()) == pytest.approx(0.5, rel=0.15) and abs(torch.corrcoef(added.flatten(1))[0, 1:]).max() < 0.6
    )
    for one, other in zip(seen["latent"][:2], seen["latent"][2:], strict=True):
        assert torch.equal(one, other)


def test_images_of_a_tuple_get_the_same_augmentation_and_an_update_of_d_alone_too():
    game = make("gali-4")
    seen = []
    game.discriminator.trunks["image"].register_forward_hook(lambda m, args, out: seen.append(args[0].detach()))
    same = {e: images() for e in game.variant.variables if e.kind == "image"}
    for rules in (Rules(), Rules(augment=("color", "translation", "cutout"))):
        compute_gradients(game, images(), source(), rules, known=same, d_only=True)
    clean, augmented = seen
    assert len(clean) == len(augmented) == 3 * BATCH and (clean[:BATCH] != augmented[:BATCH]).any()
    for part in augmented.split(BATCH):
        assert torch.equal(part, augmented[:BATCH])
    assert (
        len({tuple((a - b).flatten().tolist()) for a, b in zip(augmented[:BATCH], clean[:BATCH], strict=True)}) == BATCH
    )


def test_m_sees_the_images_as_they_are():
    seen = []
    for names in ((), ("color",)):
        game = make("gali-pt")
        game.extract.register_forward_hook(lambda m, args, out: seen.append(args[0].detach()))
        compute_gradients(game, images(), source(), Rules(augment=names))
    assert all(torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))


def test_a_users_variant_with_three_classes_and_a_penalty_on_latents_plays():
    variant = Variant(
        "mine",
        (("x", "E(x)"), ("G(z)", "z"), ("G(E(x))", "E(x)")),
        penalties=(Penalty("l1", "E(x)", "E(G(E(x)))", 2.0),),
    )
    game = make(variant)
    statistics = compute_gradients(game, images(), source(), Rules())
    assert statistics["probs"].shape == (3, 3) and statistics["penalty"] > 0
    assert all(
        p.grad is not None and p.grad.isfinite().all() for net in game.players().values() for p in net.parameters()
    )
