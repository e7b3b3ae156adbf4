"""The settings of a fit: what they are where nothing is said, and what the record of a run keeps."""

import pytest

import pyrovae as pv
from pyrovae.apps import cli, fit
from pyrovae.data.named import DATASETS


def test_schedules_start_at_one():
    assert all(schedule(0.0) == 1.0 for schedule in fit.SCHEDULES.values())
    assert fit.SCHEDULES["cosine"](0.5) == pytest.approx(0.5)


def test_a_record_is_full_and_follows_the_data():
    record = fit.record(data="mnist-static", latent=3)
    assert set(record) == set(fit.SETTINGS)
    assert (record["latent"], record["hidden"], record["lr"]) == (3, [400, 400], 2e-3)
    assert fit.record()["latent"] == 16 and fit.record(data="a/path.csv")["latent"] == 10
    assert fit.record(kl_warmup=0.0)["kl_warmup"] == 0.0
    with pytest.raises(pv.InputError, match="--lr must be positive"):
        fit.record(lr=0.0)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_what_a_fit_of_it_takes(name, capsys):
    record, source = fit.record(data=name), DATASETS[name].fit
    sizes = [record[field] for field in ("latent", "epochs", "batch_size", "lr")]
    assert all(size > 0 for size in [*sizes, *record["hidden"]]) and record["kl_warmup"] >= 0
    assert (record["latent"], record["hidden"]) == (source.latent, list(source.hidden))
    with pytest.raises(SystemExit):
        cli.main(["fit", "--help"])
    assert name in capsys.readouterr().out.replace("\n" + 24 * " ", " ")


def test_a_record_of_long_ago_is_filled():
    old = {name: value for name, value in fit.record().items() if name not in ("objective", "precision", "guide")}
    now = fit.training(old)
    assert type(now["objective"]) is pv.objectives.SampledELBO and now["precision"] == "float32"


def test_what_decides_a_fit_can_be_named():
    assert fit.training(fit.record(objective="iwae"))["objective"].num_particles == 10
    for kind in ("objective", "guide"):
        with pytest.raises(pv.InputError, match=f"unknown {kind} 'ibae'"):
            fit.record(**{kind: "ibae"})


def test_a_warm_up_longer_than_the_fit_is_told(tmp_path, capsys):
    fitted = ["fit", "--data", "digits", "--latent", "2", "--hidden", "8", "--epochs", "1"]
    assert cli.main([*fitted, "--out", str(tmp_path / "short")]) == 0
    assert "the KL warms up for 30 epochs, which this fit does not reach" in capsys.readouterr().out
    assert cli.main([*fitted, "--kl-warmup", "0", "--out", str(tmp_path / "none")]) == 0
    assert "warms up" not in capsys.readouterr().out


def test_dequantized_data_are_fitted_swept_and_come_back_with_their_run(tmp_path, capsys):
    quick = ["--epochs", "1", "--latent", "2", "--hidden", "10", "--data", "digits", "--dequantize", "--divisor", "17"]
    assert cli.main(["fit", *quick, "--out", str(tmp_path / "run")]) == 0
    assert "likelihood continuous-bernoulli" in capsys.readouterr().out
    assert pv.runs.dataset(tmp_path / "run").test.protocol.dequantized == "once"
    sweep = ["sweep", *quick, "--seeds", "1", "--particles", "30", "--method", "importance", "--out", str(tmp_path)]
    assert cli.main([*sweep, "--baselines", "normal,independent"]) == 0
    told = capsys.readouterr().out
    assert "baseline normal: exact; normal, full covariance" in told and "left out" not in told


def test_with_few_labels_the_class_is_summed_out_and_a_classifier_beside(few_labels):
    record = pv.runs.recorded(few_labels)
    assert (record["semi_supervised"], record["objective"], record["classifier_weight"]) == (100, "summed", 500.0)
    fitted = pv.runs.load(few_labels)
    assert fitted.settings["objective"].startswith("Classifying(") and len(fitted.history) == 2
    x = pv.data.load("digits").test.with_labels(0)[:4]
    report = pv.evaluate(fitted.model, fitted.guide, x, num_particles=50, progress=False)
    summed = pv.classification(fitted.model, fitted.guide, x.with_labels(), num_particles=2000, progress=False)
    error = (report.mc_se_log_evidence**2 + summed.mc_se_log_evidence**2).sqrt()
    assert ((report.log_evidence - summed.log_evidence).abs() < 4 * error).all()  # 4 standard errors


def test_without_a_weight_there_is_no_classifier_beside():
    record = fit.record(semi_supervised=100, classifier_weight=0.0, objective="vimco")
    assert type(fit.training(record)["objective"]) is pv.objectives.VIMCO


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "--semi-supervised", "50"], "--labels conditions on the class and --semi-supervised sums it out"),
        (["--classifier-weight", "3"], "--classifier-weight belongs to --semi-supervised N: give both or neither"),
        (["--semi-supervised", "50", "--classifier-weight", "-1"], "--classifier-weight must not be negative, got -1"),
        (["--semi-supervised", "9"], "--semi-supervised: expected 10 to 1,"),
        (["--semi-supervised", "5000"], "of 1,197 training data, as many of each of 10 classes, got 5000"),
        (["--semi-supervised", "50", "--prior", "vamp"], "and --semi-supervised conditions on labels: take another"),
    ],
)
def test_labels_that_cannot_be_are_refused_in_one_line(words, message, tmp_path, capsys):
    assert cli.main(["fit", "--data", "digits", "--epochs", "1", *words, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_fit_that_begins_with_few_labels_has_the_same_ones(few_labels, tmp_path, capsys):
    begun = ["fit", "--from", str(few_labels), "--epochs", "1", "--out", str(tmp_path / "on")]
    for option, value in (("--seed", "5"), ("--semi-supervised", "20")):
        assert cli.main([*begun, option, value]) == 2
        assert f"was fitted with {option} " in capsys.readouterr().err
    assert cli.main(begun) == 0
    protocols = [pv.runs.describe(run)["settings"]["protocol"] for run in (few_labels, tmp_path / "on")]
    assert protocols[0] == protocols[1]
