"""The benchmarks run and write what they say; what they measure is never asserted."""

import contextlib
import functools
import io
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
HEADER = "| contender | ms per step | loss | first round after |"


@pytest.fixture(autouse=True, scope="module")
def importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield


def run(program, *words):
    """Runs a benchmark in this process, as the command line would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{program.__name__}.py", *map(str, words)])
        program.main()


@pytest.fixture(scope="module")
def alternated(importable, tmp_path_factory):
    """The folder of two tiny rounds of four contenders, one of which cannot begin; and what was said of it."""
    import training_step

    out, contenders = tmp_path_factory.mktemp("results"), ["broken", "by hand, eager", "Pyro SVI, Trace_ELBO"]
    contenders += ["NumPyro, jitted step"]
    sizes = ["--problems", "burda-20", "--rounds", "2", "--steps", "2", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as said:
        patch.setitem(training_step.CONTENDERS, "broken", "by_hand:nothing")
        run(training_step, "--contenders", *contenders, *sizes, "--out", out)
    return out, said.getvalue()


@pytest.fixture(scope="module")
def written(alternated):
    return alternated[0]


def test_a_row_for_each_contender_and_the_machine_below(written):
    lines = (written / "training_cpu.md").read_text().splitlines()
    start = lines.index(HEADER)
    rows = [line.strip("| ").split(" | ") for line in lines[start + 2 : start + 6]]
    assert [len(row) for row in rows] == [4, 4, 4, 4]
    assert all(float(row[2]) > 0 for row in rows[1:3])
    assert rows[3][1] == "jax is not installed" or float(rows[3][2]) > 0
    assert any(line.startswith("Machine: ") for line in lines)
    assert (written / "training_cpu.png").stat().st_size > 0


@pytest.fixture(scope="module")
def outcomes(written):
    """Contender -> what became of it."""
    return json.loads((written / "training_cpu.json").read_text())["seconds per step"]["burda-20"]


def test_as_many_times_as_rounds_and_the_same_losses(outcomes):
    _, by_hand, pyro, _ = outcomes.values()
    assert len(by_hand["seconds"]) == len(pyro["seconds"]) == 2
    assert by_hand["value"] == pytest.approx(pyro["value"], rel=1e-3)  # same weights, data and noise


def test_a_contender_that_fails_says_so_and_the_others_go_on(alternated, outcomes):
    assert "no attribute 'nothing'" in outcomes["broken"]["absent"] and outcomes["broken"]["seconds"] == []
    assert all(outcomes[name]["seconds"] for name in ("by hand, eager", "Pyro SVI, Trace_ELBO"))
    assert "no attribute 'nothing'" in alternated[1]


def test_importance_sampling_by_hand_ends_a_round_with_a_number(monkeypatch):
    from side_by_side import by_hand
    from side_by_side.clock import Clock
    from side_by_side.problems import Problem

    replies = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # of a driver that has ended
    with pytest.raises(SystemExit):
        by_hand.fused(Problem("tiny", 4, num_particles=10, hidden=(5,)), "cpu", Clock(replies))
    reply = json.loads(replies.getvalue(), parse_constant=pytest.fail)
    assert reply["seconds"] > 0 and reply["value"] < 0 and reply["units"] == 40


def test_ratios_are_taken_round_by_round():
    from side_by_side.alternating import Middle, Outcome

    quick, slow = Outcome(seconds=[1.0, 2.0, 3.0]), Outcome(seconds=[2.0, 4.0, 12.0])
    assert slow.over(quick) == Middle(2.0, 2.0, 3.0)
    assert slow.over(Outcome(absent="jax is not installed")) is None


def test_cost_is_fixed_and_so_much_each():
    from side_by_side.alternating import Middle
    from side_by_side.series import Series

    sizes = [10, 100, 1000, 10_000]
    series = Series("a step", "data", sizes, [Middle.of([2.0 + 0.5 * size]) for size in sizes])
    assert series.line == pytest.approx((2.0, 0.5))
    assert series.slope == pytest.approx(1.0, abs=0.01)


def test_the_stages_of_burda_and_others():
    import burda

    stages = [burda.stage(epoch / burda.EPOCHS) for epoch in range(burda.EPOCHS)]
    assert [stages.count(i) for i in range(burda.STAGES)] == [3**i for i in range(burda.STAGES)]
    assert [burda.schedule(0.0), burda.schedule(1 - 1e-6)] == [1.0, pytest.approx(0.1)]


def test_adam_by_hand_is_adam():
    import torch
    from side_by_side import by_hand

    start, goal = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).unbind()
    own, theirs = (start.clone().requires_grad_() for _ in range(2))
    update, optimizer = by_hand.adam([own]), torch.optim.Adam([theirs], lr=by_hand.LEARNING_RATE)
    for _ in range(5):
        update((own - goal).square().sum())
        optimizer.zero_grad()
        (theirs - goal).square().sum().backward()
        optimizer.step()
    assert torch.allclose(own, theirs, rtol=1e-6, atol=1e-7) and not torch.equal(own, start)


def test_signal_to_noise_of_gradients_over_particles(tmp_path):
    import gradient_snr

    run(gradient_snr, "--particles", 1, 4, "--rows", 20, "--batches", 2, "--out", tmp_path)
    results = json.loads((tmp_path / "gradient_snr.json").read_text())
    assert results["num_estimates"] == 40
    for name in ("IWAE", "DReG", "StickingTheLanding"):
        found = results["signal_to_noise"][name]
        assert all(len(found[which]) == 2 and min(found[which]) > 0 for which in ("loc", "log_scale"))


@pytest.fixture(scope="module")
def answers(importable):
    """Rows of answers on a scale of six under two pairs of programs, ordinal and normal."""
    import numpy as np
    import torch
    from real_tables import fitted

    import pyrovae as pv

    pandas = pytest.importorskip("pandas")
    rng = np.random.RandomState(0)
    z = rng.randn(150, 1) + np.zeros((150, 4)) + 0.7 * rng.randn(150, 4)
    frame = pandas.DataFrame(np.clip(np.round(3.5 + 1.2 * z), 1, 6), columns=list("abcd")).assign(age=rng.randn(150))
    frame.iloc[:6, :4] = np.arange(1.0, 7.0)[:, None].repeat(4, 1)  # every level occurs
    frame.iloc[::9, 1] = np.nan
    data = {kind: pv.data.load(frame, columns={"[a-d]": kind}, covariates="age") for kind in ("ordinal", "real")}
    torch.manual_seed(0)
    sizes = {"latent": 2, "hidden": [8], "epochs": 3}
    return data, {kind: fitted(one, "mixed", 0, **sizes) for kind, one in data.items()}


def test_masses_of_the_levels_of_an_answer_sum_to_one(answers):
    import torch
    from real_tables import log_mass

    for kind, vae in answers[1].items():
        columns, total = answers[0][kind].columns, 0.0
        y = vae.decoder(vae.beside(torch.zeros(1, 2), torch.zeros(1, 1)))
        for level in range(6):
            value = level if kind == "ordinal" else level + 1
            x = (torch.full((1, 4), float(value)) - torch.tensor(columns.shift)) / torch.tensor(columns.scale)
            total = total + log_mass(y, x, columns).exp()
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=1e-5)


def test_hidden_answers_are_scored_by_every_model(answers):
    from real_tables import hidden_answers, of_factors, of_frequencies, of_people, of_vae

    data, vaes = answers
    hidden = hidden_answers(data["ordinal"].test.x)
    assert hidden.any() and not (hidden & data["ordinal"].test.x.isnan()).any()
    found = [of_vae(vaes[kind], data[kind].test, hidden, data[kind].columns)[0] for kind in data]
    found += [of_factors(data["real"], hidden)[0], of_frequencies(data["ordinal"], hidden)]
    for scores in found:
        assert (scores.isfinite() == hidden).all() and -5 < of_people(scores)[0] < 0


@pytest.fixture
def in_double():
    """In float32 a hidden unit next to its kink may have the gradient of either side."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_objectives_by_hand_have_the_gradients_of_ours(subtests, in_double):
    """On the same weights and noise, in double: of the decoder's weights, and of the guide's locations."""
    import pyro
    import torch
    from side_by_side import by_hand, objectives
    from side_by_side.problems import Problem
    from side_by_side.with_pyrovae import built_in

    from pyrovae.programs.families.family import positive_inverse

    raw_of_one = positive_inverse(torch.ones(()))
    for name in objectives.LOSSES:
        problem = Problem("tiny", 20, 20, num_particles=10, hidden=(5,), latent=3, objective=name)
        data, vae = by_hand.resident(problem, "cpu").double(), built_in(problem).double()
        objective, (loss, parameters) = objectives._objective(problem), objectives._loss(problem, data)
        own = [*vae.encoder.parameters(), *vae.decoder.parameters()]
        with torch.no_grad():
            for weight, bias, of_one in ((*parameters[2:4], 0.0), (*own[2:4], raw_of_one)):
                weight[3:], bias[3:] = 0.0, of_one  # all scales are 1, by exp there and by a softplus here
        torch.manual_seed(1)
        expected = torch.autograd.grad(loss(data), parameters)
        with pyro.get_param_store().scope():
            for _ in range(2):  # the first time it looks at the programs, which draws too
                vae.zero_grad()
                torch.manual_seed(1)
                objective.loss_and_grads(vae.model, vae.guide, data)
        with subtests.test(objective=name):
            torch.testing.assert_close(own[3].grad[:3], expected[3][:3], rtol=1e-8, atol=1e-8)
            for ours, theirs in zip(own[4:], expected[4:], strict=True):
                torch.testing.assert_close(ours.grad, theirs, rtol=1e-8, atol=1e-8)


def test_normals_with_gaps_reach_the_maximum_and_tell_what_is_missing():
    """Of whole rows the moments; of rows with gaps a likelihood that no other normal near has."""
    import torch
    from missing_tables import Normal, normal_of

    import pyrovae as pv

    x, _ = pv.oracles.factor_analysis(4, 1, seed=0).draw(300, seed=0)
    whole = normal_of(x)
    torch.testing.assert_close(whole.covariance, x.T.cov(correction=0), rtol=1e-8, atol=1e-8)
    holed = pv.hide(x, pv.data.mcar(x.shape, 0.3, seed=0))
    full, factors = normal_of(holed, num_steps=2000, tolerance=1e-10), normal_of(holed, 1)
    for size in (-0.02, 0.02):
        for loc, covariance in ((full.loc + size, full.covariance), (full.loc, (1 + size) * full.covariance)):
            assert Normal(loc, covariance).log_density(holed).mean() < full.log_density(holed).mean()
    assert factors.log_density(holed).mean() <= full.log_density(holed).mean()
    mean, sd = factors.moments(holed)
    away = ((x - mean) / sd)[holed.isnan()]
    assert abs(away.square().mean() - 1) < 4 * (2 / len(away)) ** 0.5 + 0.1  # 4 standard errors, and a fit's optimism


def test_tables_with_missing_entries_have_a_row_for_each_method(tmp_path, monkeypatch):
    """Tiny fits of two protocols; what they reach is never asserted."""
    import missing_tables

    monkeypatch.setattr(missing_tables, "NUM_DRAWS", 40)
    # Guides of two steps are worth no better proposals, whose search takes most of the time.
    monkeypatch.setattr(missing_tables, "draws_of", functools.partial(missing_tables.draws_of, budget=1000))
    pandas = pytest.importorskip("pandas")
    columns = pandas.DataFrame({f"c{d}": torch_rows()[:, d] for d in range(12)})
    (tmp_path / "tabular").mkdir()
    columns.to_csv(tmp_path / "tabular" / "winequality-white.csv", sep=";", index=False)
    small = {"epochs": 1, "num_particles": 50, "num_rows": 20, "num_chained": 2, "num_trees": 2}
    wine = list(missing_tables.wine(tmp_path, **small))
    breast = list(missing_tables.breast(num_columns=6, sizes=(1,), **small))
    masks = list(missing_tables.masks(1, 50, 20, 6, [1], 2))
    pooled = list(missing_tables.pooled(3, 200, 3, num_fits=2, num_masked=2, num_steps=2))
    for lines, count in ((wine, 7), (breast, 7), (masks, 3), (pooled, 27)):
        rows = [line for line in lines if line.startswith("| ")][2:]  # below the head and its rule
        assert len(rows) == count
        assert all("nan" not in row for row in rows)


def torch_rows():
    """Rows of twelve columns that depend on each other."""
    import torch

    noise = torch.Generator().manual_seed(0)
    z = torch.randn(60, 2, generator=noise)
    return (z @ torch.randn(2, 12, generator=noise) + 0.3 * torch.randn(60, 12, generator=noise)).numpy()


def test_hidden_answers_are_told_by_draws_of_the_posterior_as_by_weights(answers):
    import torch
    from missing_tables import bfi_table, masses_by_draws
    from real_tables import hidden_answers, of_people, of_vae

    data, vaes = answers
    hidden = hidden_answers(data["ordinal"].test.x)
    arguments = data["ordinal"].test, hidden, data["ordinal"].columns
    each, found = masses_by_draws(vaes["ordinal"], *arguments, 1000)
    assert torch.equal(each.isfinite(), hidden) and found.report is not None
    assert abs(of_people(each)[0] - of_people(of_vae(vaes["ordinal"], *arguments)[0])[0]) < 0.02
    rows = list(bfi_table(data, [0], 1, 50, 1, 4, 0.0))[6:]
    assert len(rows) == 4 and all("unreliable" not in row for row in rows)


def test_sections_are_rewritten_one_by_one(tmp_path):
    from missing_tables import PARTS, written

    heads = [head for head, _ in PARTS.values()]
    written(tmp_path / "a.md", {heads[1]: "one", heads[0]: "zero"})
    written(tmp_path / "a.md", {heads[1]: "two"})
    text = (tmp_path / "a.md").read_text()
    assert text.count("## ") == 2 and "zero" in text and "two" in text and "one" not in text
    assert text.index(heads[0]) < text.index(heads[1])


def test_a_claim_holds_beyond_three_standard_errors_in_its_direction():
    import continuity

    pairs = [(1.0, 2.0), (1.5, 2.6), (0.5, 1.7)]  # differences 1.0, 1.1 and 1.2: mean 1.1, SE 0.058
    first, second, difference, se = continuity.over_seeds(pairs)
    assert (first, second, difference) == (1.0, pytest.approx(2.1), pytest.approx(1.1))
    assert se == pytest.approx(0.1 / 3**0.5)
    found = [continuity.line("a", pairs, ".1f", claim).split(" | ")[-1] for claim in (1, -1, 0)]
    assert found == ["yes |", "reversed |", "- |"]
    assert continuity.line("a", [(0.0, 1.0), (0.0, -1.0)], ".1f", 1).endswith("no |")


def test_a_grid_sums_to_what_importance_sampling_estimates():
    import continuity
    import torch

    import pyrovae as pv

    x = pv.data.load("digits").test.x[:5]
    decoder = pv.Conditional(pv.families.binomial(16), (8, 8), pv.networks.mlp(2, 5, seed=0))
    encoder = pv.Conditional(pv.families.normal(), 2, pv.networks.mlp((8, 8), 5, seed=1))
    pair = pv.VAE(pv.priors.StandardNormal(2), decoder, encoder)
    found = continuity.by_grid(pair, torch.zeros(1, 2), x, points=300)
    report = pv.evaluate(pair.model, pair.guide, x, num_particles=2000, progress=False)
    error = float(report.mc_se_log_evidence.square().sum().sqrt()) / len(x)
    assert abs(found - float(report.log_evidence.mean())) < 4 * error + 1e-3
