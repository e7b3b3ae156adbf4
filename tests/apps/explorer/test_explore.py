"""The explorer in a browser: pixels are the decoder's, numbers are exact, and nothing is asked of a server."""

import math
import time

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.base.errors import InputError


def waited(page):
    """The page, once it has accounted for the datum that is chosen."""
    for _ in range(600):
        if page.run("document.body.dataset.account") == "done":
            return page
        time.sleep(0.05)
    raise AssertionError(f"no account after 30 s; errors: {page.errors}")


def place(page, fraction_x, fraction_y, canvas="plane"):
    """A point of a canvas in the window, by fractions from its left and its top."""
    page.run(f"el('{canvas}').scrollIntoView({{block: 'center'}})")
    left, top, width, height = page.run(
        f"(r => [r.left, r.top, r.width, r.height])(el('{canvas}').getBoundingClientRect())"
    )
    return left + fraction_x * width, top + fraction_y * height


def pixels(page, canvas="mean"):
    """What a canvas shows, as ink between 0 and 1."""
    height, width, *values = page.run(f"""((shown) => {{
      const copy = Object.assign(document.createElement("canvas"), {{ width: shown.width, height: shown.height }});
      const context = copy.getContext("2d", {{ willReadFrequently: true }});
      context.drawImage(shown, 0, 0);
      return [copy.height, copy.width, ...context.getImageData(0, 0, copy.width, copy.height).data];
    }})(el("{canvas}"))""")
    rgba = torch.tensor(values).reshape(height, width, 4)
    assert (rgba[..., 0] == rgba[..., 1]).all() and (rgba[..., 3] == 255).all()
    return 1 - rgba[..., 0] / 255


POINTS = [(0.5, 0.5), (0.2, 0.3), (0.9, 0.15), (0.35, 0.8), (0.05, 0.95)]


def test_under_the_pointer_the_pixels_are_the_decoders(opened, vae):
    for point in POINTS:
        x, y = place(opened, *point)
        opened.pointer("mouseMoved", x, y)
        z = torch.tensor(opened.run("latents(state.u)"))
        left, right, bottom, top = opened.run("BOX")
        shown = torch.tensor([left + point[0] * (right - left), top - point[1] * (top - bottom)])
        assert (z - shown).abs().max() < 0.01 * (right - left)  # a frame of one pixel
        with torch.no_grad():
            mean = vae.decoder(z).mean / 16
        assert (pixels(opened) - mean).abs().max() <= 1 / 255
    assert [url.rpartition("/")[2] for url in opened.requests] == ["digits.html"]  # the page itself alone
    assert opened.errors == []


def linear_vae(num_latents=2):
    """An affine decoder with normal noise, of which all is known."""
    oracle = pv.VAE(
        prior=pv.priors.StandardNormal(num_latents),
        decoder=pv.Conditional(pv.families.normal(scale=0.6), (4,), pv.networks.mlp(num_latents, seed=0)),
        encoder=pv.Conditional(pv.families.normal(), (num_latents,), pv.networks.mlp(4, seed=1)),
    )
    rows = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    layer = oracle.decoder.network.network[0]
    with torch.no_grad():
        exact = dist.LowRankMultivariateNormal(layer.bias, layer.weight, torch.full((4,), 0.36)).log_prob(rows)
        q = oracle.encoder(rows).base_dist
        kl = (q.scale**2 + q.loc**2 - 1 - 2 * q.scale.log()).sum(-1) / 2
        away = (rows - layer(q.loc)).square().sum(-1) + (q.scale**2 @ layer.weight.square().T).sum(-1)
        reconstruction = -away / 0.72 - 4 * math.log(0.6 * math.sqrt(2 * math.pi))
    return (
        oracle,
        rows,
        {"evidence": exact, "reconstruction": reconstruction, "klPrior": kl, "elbo": reconstruction - kl},
    )


def test_the_account_of_a_datum_is_exact(browser, tmp_path):
    vae, rows, exact = linear_vae()
    report = pv.evaluate(vae.model, vae.guide, rows, num_particles=100)
    page = pv.explore(vae, rows, tmp_path / "linear.html", report=report, title="<A line>")
    browser.open(page.path)
    for number in (0, 7):
        browser.run(f"choose({number})")
        account = waited(browser).run("state.account")
        for name, value in exact.items():
            assert account[name] == pytest.approx(value[number].item(), abs=2e-4), name
        text = browser.run("el('account').innerText")
        assert f"{report.elbo[number]:.3f}".replace("-", "−") in text and f"{exact['evidence'][number]:.2f}"[1:] in text
    assert "below the grid" not in browser.run("el('how').textContent")
    browser.run("(scene.report.log_evidence[7] -= 3, choose(7))")
    assert "3.00 nats below the grid" in waited(browser).run("el('how').textContent")
    assert browser.run("document.title") == browser.run("el('title').textContent") == "<A line>"
    assert browser.errors == []


def test_many_latents_have_sliders_and_draws_with_their_errors(browser, tmp_path):
    vae, rows, exact = linear_vae(4)
    browser.open(pv.explore(vae, rows, tmp_path / "four.html").path)
    browser.run("choose(3)")
    account = waited(browser).run("state.account")
    for name, value in exact.items():
        assert abs(account[name] - value[3].item()) < 5 * account["errors"][name] + 1e-4, name  # 5 s.e., the seed fixed
    assert browser.run("document.querySelectorAll('#sliders input').length") == 2
    before = browser.run("[...decodedMean(state.u)]")
    browser.run(
        "(s => { s.value = -2; s.dispatchEvent(new Event('input')); })(document.querySelector('#sliders input'))"
    )
    u, z, after = browser.run("[state.u, latents(state.u), [...decodedMean(state.u)]]")
    assert u[2] == -2 and after != before
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(after), vae.decoder(torch.tensor(z)).mean, rtol=1e-5, atol=1e-5)
    # The posterior given the further coordinates is normal: its mode, beside that of the grid.
    grid = waited(browser).run("(g => g.place(g.log.indexOf(Math.max(...g.log))))(state.grid)")
    axes, origin = (torch.tensor(browser.run(f"[...plane.{name}]")) for name in ("axes", "origin"))
    layer, axes = vae.decoder.network.network[0], axes.reshape(4, 4)
    rest = origin + torch.tensor(u[2:]) @ axes[2:]
    weight = layer.weight.detach() @ axes[:2].T
    precision = weight.T @ weight / 0.36 + torch.eye(2)
    towards = weight.T @ (rows[3] - layer(rest).detach()) / 0.36 - axes[:2] @ rest
    mode = torch.linalg.solve(precision, towards)
    cells = browser.run("[0, 2].map((k) => (state.grid.box[k + 1] - state.grid.box[k]) / (state.grid.nodes - 1))")
    assert (np.abs(np.array(grid) - mode.numpy()) < np.array(cells)).all()
    code, covariance = browser.run("(s => [s.code.slice(0, 2), s.covariance])(slice(state.datum.q, state.u))")
    q = vae.encoder(rows[3]).base_dist
    own = axes[:2] @ torch.diag(q.scale.detach() ** -2) @ axes[:2].T
    middle = torch.linalg.solve(own, axes[:2] @ ((q.loc - rest) / q.scale**2).detach())
    torch.testing.assert_close(torch.tensor(code), middle, rtol=1e-4, atol=1e-4)
    (aa, ab, bb) = covariance
    torch.testing.assert_close(torch.tensor([[aa, ab], [ab, bb]]), own.inverse(), rtol=1e-4, atol=1e-4)


def test_keys_paths_and_a_walk_move_z(opened):
    opened.run("isStill.__proto__ && Object.defineProperty(isStill, 'matches', { value: true })")
    opened.run("el('plane').focus()")
    before = opened.run("state.u")
    for key in ("ArrowRight", "ArrowUp"):
        opened.send("Input.dispatchKeyEvent", type="keyDown", key=key)
    moved, step = opened.run("state.u"), opened.run("(BOX[1] - BOX[0]) / 100")
    assert moved == pytest.approx([before[0] + step, before[1] + step])
    opened.send("Input.dispatchKeyEvent", type="keyDown", key="Enter")
    assert opened.run("state.datum.number === nearest(state.u, data.x.shape[0])")
    opened.run("choose(5); choose(9); el('spherical').click()")
    ends = opened.run("[state.path[0], state.path[40], coordinates(guideOf(state.previous.x, 5).mean), state.u]")
    assert ends[0] == pytest.approx(ends[2]) and ends[1] == pytest.approx(ends[3])
    lengths = np.linalg.norm(opened.run("state.path"), axis=1)
    assert lengths.min() > 0.99 * min(lengths[0], lengths[-1])  # on a circle, where a line would cut the corner
    assert opened.run("el('strip').width") == 9 * 8 + 8
    before = opened.run("state.u")
    opened.run("el('walk').click()")
    assert opened.run("state.walking") and opened.run("state.u") != before
    opened.run("el('walk').click(); el('from-prior').click()")
    assert not opened.run("state.walking")
    assert opened.errors == []


def test_what_is_drawn_into_a_datum_is_read_by_the_encoder(opened, vae):
    opened.run("choose(0)")
    x, y = place(opened, 0.8, 0.2, "datum")
    opened.click(x, y)
    drawn = torch.tensor(opened.run("[...state.datum.x]")).reshape(8, 8)
    assert drawn[1, 6] == 16 and opened.run("state.datum.isOwn")
    with torch.no_grad():
        expected = vae.encoder(drawn[None]).base_dist.loc[0]
    torch.testing.assert_close(torch.tensor(opened.run("[...state.datum.q.mean]")), expected, rtol=1e-4, atol=1e-4)
    opened.run("el('clear').click()")
    assert opened.run("state.datum.x.every((v) => v === 0)")
    opened.run("el('undo').click()")
    assert not opened.run("state.datum.isOwn") and opened.errors == []


def test_everything_is_named_and_a_phone_is_wide_enough(browser, written):
    browser.open(written.path, width=360, height=700, dark=True, ratio=2)
    waited(browser).run("choose(1); choose(2); el('linear').click()")
    unnamed = "[...document.querySelectorAll('canvas')].filter((c) => !c.ariaLabel).map((c) => c.id)"
    assert waited(browser).run(unnamed) == []
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.run("[...document.querySelectorAll('button')].every((b) => b.textContent)")
    assert browser.errors == []


def own_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Gamma(torch.full((2,), 3.0), 1.0).to_event(1))
        pyro.sample("x", dist.Poisson(z @ torch.tensor([[1.0, 2.0, 0.5], [0.5, 0.1, 3.0]])).to_event(1), obs=x)


def own_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Gamma(1 + x[:, 1:], 1.0).to_event(1))


def test_programs_of_ones_own_are_decoded_beforehand(browser, tmp_path):
    rows = pv.sample(own_model, torch.zeros(1, 3), num_samples=30).values["x"]
    page = pv.explore((own_model, own_guide), rows, tmp_path / "own.html")
    assert page.live == () and "interpolated bilinearly" in page.summary() and page.num_bytes < 1_000_000
    browser.open(page.path)
    waited(browser)
    for u in ([0.3, 0.9], [1.2, 0.1]):  # logarithms
        found = browser.run(f"[...decodedMean({u})]")
        exact = torch.tensor(u).exp() @ torch.tensor([[1.0, 2.0, 0.5], [0.5, 0.1, 3.0]])
        assert (torch.tensor(found) - exact).abs().max() < 0.15  # of values to 20: bytes, and lines between nodes
    browser.run("choose(4)")
    exact = pv.reference_posterior(own_model, own_guide, rows[4:5], num_draws=10).log_evidence
    account = waited(browser).run("state.account")
    assert account["evidence"] == pytest.approx(exact.value, abs=1e-3)
    assert account["elbo"] < account["evidence"] and "bilinearly" in browser.run("el('notes').textContent")
    assert browser.run("el('editing').hidden") and browser.errors == []


def test_a_page_too_large_leaves_out_the_encoder_then_the_decoder(browser, vae, digits, written, tmp_path):
    guide = pv.explore(vae, digits, tmp_path / "guide.html", most_bytes=written.num_bytes - 2000)
    assert guide.live == ("decoder",) and "the encoder (its weights take 0.01 MB more)" in guide.notes[0]
    browser.open(guide.path)
    account = waited(browser).run("state.account")
    without = pv.explore(vae, digits, tmp_path / "without.html", most_bytes=guide.num_bytes - 8000)
    assert without.live == () and "the decoder (its weights take 0.01 MB)" in without.notes[0]
    browser.open(written.path)
    found = waited(browser).run("state.account")  # on a grid that is finer the faster the machine
    assert found.pop("evidence") == pytest.approx(account.pop("evidence"), abs=0.01)
    assert found == pytest.approx(account, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "page.txt"}, "give a name that ends in .html"),
        ({"pair": 3}, "expected a fit, a VAE or a tuple"),
        ({"plane": (0, 2)}, r"two of the coordinates 0..1, got \(0, 2\)"),
        ({"data": torch.zeros(1, 8, 8)}, "needs at least two data, got 1"),
    ],
    ids=["path", "pair", "plane", "data"],
)
def test_what_does_not_fit_is_refused(vae, digits, tmp_path, change, message):
    given = {"pair": vae, "data": digits, "path": "page.html", **change}
    with pytest.raises(InputError, match=message):
        pv.explore(given["pair"], given["data"], tmp_path / given["path"], plane=given.get("plane"))


def test_a_single_latent_and_a_report_on_other_rows_are_refused(vae, digits, tmp_path):
    one, rows, _ = linear_vae(1)
    with pytest.raises(InputError, match="has one alone"):
        pv.explore(one, rows, tmp_path / "one.html")
    report = pv.evaluate(vae.model, vae.guide, digits[:5], num_particles=10, method="importance")
    with pytest.raises(InputError, match="the report is on other rows"):
        pv.explore(vae, digits, tmp_path / "other.html", report=report)


def test_of_several_columns_one_is_named(tmp_path):
    """A model of several sites that are no images, as of a table."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            for place, name in enumerate(("age", "weight")):
                pyro.sample(name, dist.Normal(z[..., place], 1.0), obs=x[:, place])

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=r"2, none of which holds images: name one with site=, .* age, weight"):
        pv.explore((model, guide), x, tmp_path / "page.html")
    with pytest.raises(InputError, match='did you mean "weight"'):
        pv.explore((model, guide), x, tmp_path / "page.html", site="weigth")
    assert pv.explore((model, guide), x, tmp_path / "page.html", site="weight").live == ()
    assert (tmp_path / "page.html").stat().st_size > 10_000
