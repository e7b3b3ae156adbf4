"""Modules are found wherever a program keeps them; modes, scopes and the global store come back as they were."""

import functools
import sys
import types
from collections import deque, namedtuple
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer.autoguide import AutoNormal, AutoNormalMessenger
from torch import nn
from torch.distributions import constraints

import pyrovae as pv
from pyrovae.base.errors import InputError
from pyrovae.pairs.context import (
    Scoped,
    check_one_dtype,
    double_precision,
    evaluation_mode,
    home_device,
    in_double,
    modules_of,
    own_scope,
    preserve_modes,
    quiet_numerics,
    sets_up_later,
    used_modules,
)
from pyrovae.pairs.traces import plain_traces, site_log_prob

NET = nn.Linear(2, 2)
HOLDER = {"nets": [NET]}
Both = namedtuple("Both", "first second")

# ------------------------------------------------------------------------------------------- modules


class OnModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.child = nn.Linear(2, 2)

    def model(self, x):
        return self.child(x)


class OnObject:
    def __init__(self, net):
        self.net = net

    def model(self, x):
        return self.net(x)

    def __call__(self, x):
        return self.net(x)


class ByGlobal:
    """Its program calls a method, and only that one names the module."""

    def model(self, x):
        return self.decode(x)

    def decode(self, x):
        return NET(x)

    def __call__(self, x):
        return self.decode(x)


def uses_global(x):
    return NET(x)


def uses_container(x):
    return HOLDER["nets"][0](x)


def inner_function(x):
    def deeper():
        return [NET(row) for row in x]

    return deeper()


def calls_another(x):
    return uses_global(x)


def closure(net, wrap=lambda net: net):
    kept = wrap(net)

    def program(x):
        return kept

    return program


def with_defaults(x, net=NET, *, also=None):
    return net


def with_keyword_default(x, *, net=NET):
    return net


FOUND = {  # name: a function of a module that makes a program which can reach it
    "closure": closure,
    "list": lambda net: closure(net, lambda net: [net]),
    "dict-of-lists": lambda net: closure(net, lambda net: {"a": [1, (net,)]}),
    "set": lambda net: closure(net, lambda net: {net}),
    "deque": lambda net: closure(net, lambda net: deque([net])),
    "named-tuple": lambda net: closure(net, lambda net: Both(net, 3)),
    "cycle": lambda net: closure(net, lambda net: cyclic(net)),
    "partial": lambda net: functools.partial(lambda net, x: net(x), net),
    "partial-keyword": lambda net: functools.partial(lambda x, net: net(x), net=net),
    "method": lambda net: OnObject(net).model,
    "callable-object": OnObject,
    "wrapped": lambda net: functools.wraps(uses_container)(closure(net)),
    "handled": lambda net: poutine.scale(closure(net), scale=2.0),
    "plated": lambda net: pyro.plate("data", 3)(closure(net)),
    "scoped": lambda net: Scoped(closure(net), {"params": {}, "constraints": {}}),
    "function-of-functions": lambda net: closure(net, lambda net: lambda x: net(x)),
}


def cyclic(net):
    items = [net]
    items.append(items)
    return items


@pytest.mark.parametrize("build", FOUND.values(), ids=FOUND)
def test_modules_are_found(build):
    net = nn.Linear(2, 2)
    assert [module for module in modules_of(build(net)) if module is not NET] == [net]


BY_NAME = {
    "global": uses_global,
    "global-container": uses_container,
    "inner-function": inner_function,
    "called": calls_another,
    "method-of-a-method": ByGlobal().model,
    "object-of-a-method": ByGlobal(),
    "default": with_defaults,
    "keyword-default": with_keyword_default,
}


@pytest.mark.parametrize("program", BY_NAME.values(), ids=BY_NAME)
def test_modules_named_by_code_are_found(program):
    assert modules_of(program) == [NET]


def test_only_the_outermost_modules_and_each_once():
    outer, other = OnModule(), nn.Linear(1, 1)
    assert modules_of(outer.model, closure(outer.child), closure(other), outer.model) == [outer, other]


def test_programs_without_modules():
    def unset():
        return later

    assert modules_of(lambda x: x, unset, print, len) == []
    later = 3


def test_many_values_in_reach_take_no_time():
    numbers = list(range(300_000))
    assert modules_of(closure(numbers, lambda n: [n, NET])) == [NET]


# --------------------------------------------------------------------------------------------- modes


def mixed():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()), nn.Dropout())
    net[1].eval()
    net[2].eval()
    net[1][1].train()
    return net


def modes(net):
    return [part.training for part in net.modules()]


@pytest.mark.parametrize("error", [None, RuntimeError], ids=["done", "raised"])
def test_evaluation_mode_puts_mixed_modes_back(error):
    net = mixed()
    before = modes(net)
    with pytest.raises(error) if error else nullcontext():
        with evaluation_mode([net]):
            assert not any(modes(net))
            if error:
                raise error
    assert modes(net) == before and len(set(before)) == 2


def test_kept_modes():
    net = mixed()
    before = modes(net)
    with preserve_modes([net]):
        net.train()
    assert modes(net) == before


def test_quiet_numerics():
    with quiet_numerics():
        assert not torch.is_grad_enabled() and not torch.distributions.Distribution._validate_args
    assert torch.is_grad_enabled() and torch.distributions.Distribution._validate_args


# -------------------------------------------------------------------------------------------- scopes


def program(x=None):
    pyro.module("net", NET)
    pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)


@pytest.mark.parametrize("fresh", [True, False])
def test_own_scope_leaves_the_global_store_alone(fresh):
    pyro.param("mine", torch.tensor(2.0), constraint=constraints.positive)
    store = pyro.get_param_store()
    with own_scope(program, program, fresh=fresh) as (model, guide, scope):
        assert (model, guide) == (program, program)
        assert list(store.keys()) == ([] if fresh else ["mine"])
        program()
        store.setdefault("mine", torch.tensor(5.0), constraint=constraints.positive)
    assert set(scope["params"]) == {"net$$$weight", "net$$$bias", "scale", "mine"}
    assert list(store.keys()) == ["mine"] and pyro.param("mine") == 2
    assert pyro.param("mine").unconstrained() is dict(store.named_parameters())["mine"]
    pyro.clear_param_store()


def test_own_scope_after_an_error():
    pyro.param("mine", torch.tensor(2.0))
    with pytest.raises(ZeroDivisionError), own_scope(program, program):
        program()
        raise ZeroDivisionError
    assert list(pyro.get_param_store().keys()) == ["mine"]
    pyro.clear_param_store()


def scoped(value):
    def model(x):
        return pyro.param("scale", torch.tensor(-1.0)) * x

    scope = {"params": {}, "constraints": {}}
    with pyro.get_param_store().scope(scope):
        pyro.param("scale", torch.tensor(value))
    return Scoped(model, scope)


def test_scoped_programs_keep_their_own_parameters():
    one, two = scoped(1.0), scoped(2.0)
    pyro.param("scale", torch.tensor(7.0))
    assert (one(3.0), two(3.0), one(3.0)) == (3, 6, 3)
    assert one.__name__ == "model" and pyro.param("scale") == 7
    pyro.clear_param_store()


def test_own_scope_of_a_scoped_pair_is_its_scope():
    one = scoped(1.0)
    guide = Scoped(lambda x: pyro.param("scale"), one.scope)
    with own_scope(one, guide) as (model, unwrapped, scope):
        assert model is one.program and unwrapped is guide.program and scope is one.scope
        assert model(3.0) == 3 and unwrapped(0) == 1
    with own_scope(one, lambda x: pyro.param("scale")) as (_, bare, _):
        assert bare(0) == 1


def test_programs_of_two_fits():
    with pytest.raises(InputError, match="from two different fits; take both from one"):
        with own_scope(scoped(1.0), scoped(2.0)):
            pass


# ------------------------------------------------------------------------------------------- devices


def guide(x):
    with pyro.plate("data", 20, subsample_size=len(x)):
        pyro.sample("z", dist.Normal(x, 1.0))


def test_home_device():
    meta = nn.Linear(1, 1, device="meta")
    assert home_device(closure(NET), guide) == torch.device("cpu")
    assert home_device(lambda x: x, closure(meta)) == torch.device("meta")
    assert home_device(lambda x: x, lambda x: x) == torch.device("cpu")
    with pyro.get_param_store().scope():
        pyro.param("loc", torch.zeros(2, device="meta"))
        assert home_device(lambda x: x, lambda x: x) == torch.device("meta")


def test_modules_that_are_called_follow_those_that_are_named():
    hidden, file = nn.Sequential(nn.Linear(2, 2), nn.Dropout()), types.ModuleType("nets")
    file.net = hidden

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[:, None], 1.0).to_event(1), obs=NET(x))

    def guide(x):
        pyro.param("made_there", torch.tensor(1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(file.net(x)[:, 0], 1.0))

    noise = torch.get_rng_state()
    assert used_modules(model, guide, [torch.zeros(3, 2)]) == [NET, hidden]
    assert hidden.training and torch.equal(noise, torch.get_rng_state())
    assert "made_there" not in pyro.get_param_store()
    assert used_modules(model, guide, [torch.zeros(3, 7)])[0] is NET  # what does not run is told of elsewhere


# ------------------------------------------------------------------------------------------ double precision


def narrow_pair():
    """A pair that holds float32 in every place: modules named and hidden, buffers, parameters, closures, families."""
    decoder, hidden, shift = torch.nn.Linear(2, 5), [torch.nn.Linear(5, 4)], torch.randn(5)
    decoder.register_buffer("offset", torch.randn(5))
    classes = dist.Categorical(probs=torch.ones(3))

    def model(x):
        pyro.module("decoder", decoder)
        scale = pyro.param("scale", torch.tensor(0.7), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            c = pyro.sample("c", classes)
            loc = decoder(z) + decoder.offset + shift + c[..., None]
            pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc, scale = hidden[0](x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))
            pyro.sample("c", dist.Categorical(torch.ones(3)))

    return model, guide, [*decoder.parameters(), decoder.offset, *hidden[0].parameters(), shift, classes.probs], classes


@pytest.mark.parametrize("ends", ["by itself", "by an error", "by Ctrl-C"])
def test_double_precision_puts_all_back_bit_for_bit(ends):
    model, guide, tensors, classes = narrow_pair()
    x = torch.randn(6, 5)
    with own_scope(model, guide, fresh=True):
        model(x)
        scale = pyro.get_param_store()["scale"].clone()
        before = [(t, t.detach().clone(), t.data_ptr(), t.requires_grad) for t in tensors]
        known = set(vars(classes))
        try:
            with double_precision(model, guide), pyro.validation_enabled(False):
                assert all(t.dtype == torch.float64 for t in tensors)
                sites = plain_traces(model, guide, in_double([x])).every_site
                assert all(site_log_prob(site).dtype == torch.float64 for site in sites)
                pyro.param("new", torch.zeros(2))
                if ends != "by itself":
                    raise KeyboardInterrupt if ends == "by Ctrl-C" else ValueError
        except (KeyboardInterrupt, ValueError):
            pass
        store = pyro.get_param_store()
        assert "new" not in store and torch.equal(store["scale"], scale) and store["scale"].dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32 and set(vars(classes)) == known
    for tensor, value, place, has_gradient in before:
        assert torch.equal(tensor, value) and tensor.dtype == torch.float32
        assert tensor.data_ptr() == place and tensor.requires_grad == has_gradient


def test_what_is_called_without_being_named_is_widened_too(monkeypatch):
    module = torch.nn.Linear(3, 1)
    monkeypatch.setitem(sys.modules, "hidden_layer", module)

    def program(x):
        return sys.modules["hidden_layer"](x)

    with double_precision(program, program):
        assert program(torch.zeros(2, 3)).dtype == torch.float64
    assert module.weight.dtype == torch.float32


# ----------------------------------------------------------------------------------------------- labels as reals

LABELS = torch.tensor([0.0, 2.0, 1.0])
WANTING_WHOLE = {
    "embedding": lambda x, y: nn.Embedding(3, 2)(y),
    "one-hot": lambda x, y: nn.functional.one_hot(y, 3),
    "gather": lambda x, y: x.new_zeros(3).gather(0, y),
    "take": lambda x, y: x.new_zeros(3).take(y),
    "index": lambda x, y: x.new_zeros(3)[y],
    "cross entropy": lambda x, y: nn.functional.cross_entropy(x.new_zeros(3, 3), y),
}


@pytest.mark.parametrize("use", WANTING_WHOLE.values(), ids=WANTING_WHOLE)
def test_labels_that_are_real_are_named(use):
    args = torch.full((3, 2), 0.3), LABELS
    with pytest.raises((RuntimeError, IndexError)) as failure:
        use(*args)
    message = r"argument 2 of the data is float32: give labels as labels\.long\(\)$"
    with pytest.raises(InputError, match=message):
        check_one_dtype(failure.value, use, use, args)
    with pytest.raises(InputError, match=r"^the programs give real numbers .*: give indices\.long\(\) there$"):
        check_one_dtype(failure.value, use, use, args[:1])


@pytest.mark.parametrize(
    "use",
    [lambda: nn.Linear(3, 2)(LABELS.long()), lambda: LABELS.long() @ LABELS, lambda: nn.Linear(3, 2).double()(LABELS)],
    ids=["long data", "dot", "double"],
)
def test_two_dtypes_that_meet_are_no_labels(use):
    with pytest.raises(RuntimeError) as failure:
        use()
    with pytest.raises(InputError, match=r"tensors of two dtypes meet"):
        check_one_dtype(failure.value, len, len, [LABELS])


def test_a_measurement_names_labels_that_are_real():
    table = nn.Embedding(3, 1)

    def model(x, y):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(table(y)[:, 0], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, y):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    with pytest.raises(InputError, match=r"argument 2 of the data is float32: give labels as labels\.long\(\)$"):
        pv.evaluate(model, guide, (torch.full((3,), 0.3), LABELS), num_particles=10)


def test_what_a_family_works_out_inside_is_forgotten_however_often_it_was_seen():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.prior = dist.Categorical(logits=torch.zeros(3))

        def forward(self, x):
            return x

    encoder = Encoder()

    def program(x):
        return encoder.prior.probs, encoder(x)  # the call looks at the family again, its probs made

    with double_precision(program, program):
        assert program(torch.zeros(1))[0].dtype == torch.float64
    assert "probs" not in vars(encoder.prior) and encoder.prior.probs.dtype == torch.float32


def test_no_more_than_so_many_bytes_are_doubled():
    net = nn.Linear(10, 10)
    with pytest.raises(MemoryError), double_precision(net, net, 400):
        pass
    assert {p.dtype for p in net.parameters()} == {torch.float32} and torch.get_default_dtype() == torch.float32
    with double_precision(net, net, 440):
        assert {p.dtype for p in net.parameters()} == {torch.float64}


def test_guides_that_their_first_run_sets_up():
    for lazy in (AutoNormal(guide), AutoNormalMessenger(guide)):
        _sets_up(lazy)


def _sets_up(lazy):
    assert sets_up_later(guide, lazy) and sets_up_later(guide, lambda x: lazy(x)) and not sets_up_later(guide, guide)
    with own_scope(guide, lazy):
        lazy(torch.zeros(3))
    assert not sets_up_later(guide, lazy)


def test_modules_named_through_a_file_are_found():
    held = types.ModuleType("held_nets")
    held.net, sys.modules["held_nets"] = nn.Linear(2, 2), held

    def program(x):
        import held_nets

        return held_nets.net.weight @ x

    try:
        assert modules_of(program) == [held.net]
    finally:
        del sys.modules["held_nets"]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_script_modules_stay_as_they_are():
    scripted = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(InputError, match="TorchScript"), double_precision(scripted, scripted):
        pass
    assert scripted.weight.dtype == torch.float32 and scripted(torch.zeros(1, 2)).dtype == torch.float32
