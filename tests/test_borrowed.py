"""Networks and functions of others: the same results as of a pure copy, and nothing about them is changed."""

import copy
import dis
import random
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import ganlens as gl
from ganlens.borrowed import borrowed, lock_of, modules_in, weights_version
from ganlens.models.classifier import Classifier

Z = 16


def body() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(Z, 128), nn.Unflatten(1, (8, 4, 4)), nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(True), nn.Upsample(scale_factor=2), nn.Conv2d(8, 3, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


class Pure(nn.Module):
    """What all networks below compute; each of them does something else besides."""

    def __init__(self):
        super().__init__()
        self.body = body()

    def forward(self, z):
        self.before(z)
        x = self.body(self.scaled(z))
        self.after(x)
        return x

    def scaled(self, z):
        return z * 0.5

    def before(self, z):
        pass

    def after(self, x):
        pass


class InPlace(Pure):
    def scaled(self, z):
        z *= 0.5
        return z


class Filled(Pure):
    def after(self, x):
        self.last = x

    def before(self, z):
        if hasattr(self, "last"):
            self.last.fill_(7)  # a result that it gave away before


class Normed(Pure):
    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(Z), nn.Dropout(0.5)
        for _ in range(5):
            self.norm(torch.randn(32, Z))

    def scaled(self, z):
        return self.drop(self.norm(z)) * 0.5


class PureNormed(Normed):
    """As `Normed` in evaluation mode."""

    def scaled(self, z):
        return nn.functional.batch_norm(z, self.norm.running_mean, self.norm.running_var, *self.norm.parameters()) * 0.5


class Lazy(Pure):
    def before(self, z):
        self.register_buffer("grid", torch.linspace(0, 1, len(z)), persistent=False)


class Counting(Pure):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def before(self, z):
        self.calls += 1


class Drawing(Pure):
    def before(self, z):
        torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002


class Seeding(Pure):
    def before(self, z):
        torch.manual_seed(5)


class Extra(Pure):
    def get_extra_state(self):
        return {"steps": 3}

    def set_extra_state(self, state):
        pass


class Training(Pure):
    """Puts itself back into training mode."""

    def after(self, x):
        self.train()


class Remembering(Pure):
    def __init__(self):
        super().__init__()
        self.known = {}

    def before(self, z):
        self.known[len(z)] = self.known.get(len(z), torch.ones(len(z)))


class Overwriting(Pure):
    """Writes into the features of a layer, as soon as the image is made."""

    def __init__(self):
        super().__init__()
        self.body[3].register_forward_hook(lambda module, inputs, output: setattr(self, "features", output))

    def after(self, x):
        with torch.no_grad():
            self.features.zero_()


class Grading(Pure):
    def forward(self, z):
        with torch.enable_grad():
            return super().forward(z)


class Inferring(Pure):
    def scaled(self, z):
        with torch.inference_mode():
            return (z * 0.5).clone()

    def forward(self, z):
        return super().forward(z) if self.training else torch.inference_mode()(super().forward)(z)


class Threaded(Pure):
    def forward(self, z):
        with ThreadPoolExecutor(1) as pool, torch.no_grad():
            return pool.submit(super().forward, z).result() if not torch.is_grad_enabled() else super().forward(z)


class Averaging(Pure):
    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(Z), persistent=False)

    def before(self, z):
        self.average.lerp_(z.detach().mean(0), 0.1)


class Freezing(Pure):
    def before(self, z):
        self.body[0].requires_grad_(True)


class Forgetting(Pure):
    def before(self, z):
        if not torch.is_grad_enabled():
            self.zero_grad()


class Growing(Pure):
    def before(self, z):
        self.add_module("seen", nn.Identity().train(self.training))


class Caching(Pure):
    """Gives the same tensor again for latents that it has seen."""

    def __init__(self):
        super().__init__()
        self.cache = {}

    def scaled(self, z):
        key = z.detach().numpy().tobytes()
        if key not in self.cache:
            self.cache[key] = z.detach() * 0.5
        return self.cache[key]


class Locked(Pure):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def before(self, z):
        with self.lock:
            pass


class Twin(Pure):
    def __init__(self):
        super().__init__()
        self.twin = self.body[0]


class Warning_(Pure):
    def before(self, z):
        warnings.warn("this is old", stacklevel=2)


class LastChannels(Pure):
    def scaled(self, z):
        self.body.to(memory_format=torch.channels_last)
        return z * 0.5


class Watching(Pure):
    """Has hooks of its own, which stay."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.body[4].register_forward_hook(lambda module, inputs, output: self.seen.append(len(output)))


class Spectral(Pure):
    """Its vectors move with each pass in training mode."""

    def __init__(self):
        super().__init__()
        self.scale = nn.utils.parametrizations.spectral_norm(nn.Linear(Z, Z, bias=False))
        nn.init.eye_(self.scale.parametrizations.weight.original)

    def scaled(self, z):
        return self.scale(z) * 0.5


class Timing(Pure):
    def before(self, z):
        self.last_call = (len(z), z.device)


KINDS = (
    InPlace, Filled, Normed, Lazy, Counting, Drawing, Seeding, Extra, Remembering, Overwriting, Grading, Inferring,
    Threaded, Averaging, Freezing, Forgetting, Growing, Caching, Locked, Twin, Warning_, LastChannels, Watching,
    Spectral, Timing,
)  # fmt: skip
EDIT = gl.ablate("body.3", [0, 1])


def named(z):
    return z.clone()


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def bright(x):
    return (x.mean(1, keepdim=True) > 0).int() + 1


def everything(net) -> list[np.ndarray]:
    """All that is measured of a network."""
    G, S = gl.Generator.wrap(net, Z, "net"), gl.Segmenter.wrap(bright, ["dark", "bright"])
    D = gl.dissect(G, S, "body.3", n=24, progress=False)
    effect = gl.ablation_effect(D, "dark", units=[0, 1], n=16, progress=False)
    opened = G.open("body.3", range(4))
    images = [G.generate(range(4)), G.generate(range(4), EDIT), opened.edited(EDIT), opened.resume(opened.features)]
    images += [gl.replay(gl.Recipe.of(G, 3, EDIT), G), G.levels("body.3").mean()]
    return [D.on, D.overlap, D.area, D.top, effect.removed, *(torch.as_tensor(x).detach().numpy() for x in images)]


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_a_pure_copy(kind, mode):
    net, pure = kind().train(mode), {Normed: PureNormed, Spectral: Spectral}.get(kind, Pure)()
    before = {name: x.clone() for name, x in net.state_dict().items() if isinstance(x, torch.Tensor)}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    found = everything(net)
    assert states[0] == random.getstate()
    assert states[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(states[2], torch.get_rng_state())
    for a, b in zip(found, everything(pure.eval()), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    after = net.state_dict()
    assert all(torch.equal(x, after[name]) for name, x in before.items() if name != "calls")
    assert all(module.training is mode for name, module in net.named_modules() if name != "seen")
    own = {Overwriting: net.body[3], Watching: net.body[4]}.get(kind)
    assert [module for module in net.modules() if module._forward_hooks] == ([own] if own else [])
    assert not any(module._forward_pre_hooks for module in net.modules())
    if kind in (Overwriting, Inferring):
        return  # its own training fails without us, too
    net.train()(torch.randn(8, Z)).sum().backward()  # the owner's training goes on


def test_a_network_that_goes_back_to_training():
    net = Training()
    for a, b in zip(everything(net), everything(Pure()), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


class InPlaceSegmenter(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout2d(0.5)

    def forward(self, x):
        x += 1
        x /= 2
        return self.drop(self.norm(x)).softmax(1)


@pytest.mark.parametrize("wrapped", [lambda net: net, lambda net: lambda x: net(x), lambda net: net.forward])
def test_segmenters_in_training_mode_that_write_into_images(wrapped):
    net, G = InPlaceSegmenter().train(), gl.Generator.wrap(Pure(), Z)
    mean = net.norm.running_mean.clone()
    S = gl.Segmenter.wrap(wrapped(net), ["a", "b", "c"], "net")
    first, second = (gl.dissect(G, S, "body.3", n=24, progress=False) for _ in range(2))
    assert np.array_equal(first.area, second.area)
    assert torch.equal(net.norm.running_mean, mean)
    assert net.training
    x = G.generate(range(3))
    kept = x.clone()
    S.labels(x)
    assert torch.equal(x, kept)


def test_images_of_a_classifier_are_not_written_into():
    x = torch.rand(8, 3, 8, 8)
    kept = x.clone()
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    C = Classifier.wrap(net, x, inputs=lambda images: images.mul_(2))
    scores = C.scores(range(8))
    assert torch.equal(x, kept)
    assert torch.allclose(scores, net(2 * kept))


def test_latents_stay():
    G = gl.Generator.wrap(InPlace(), Z)
    z = G.latents(range(4))
    kept = z.clone()
    G.forward(z)
    G.read(z, ["body.3"])
    assert torch.equal(z, kept)


# ---- what is remembered belongs to the weights


@pytest.mark.parametrize("way", ["step", "data", "load", "swap"])
def test_levels_follow_the_weights(way):
    net = Pure()
    G = gl.Generator.wrap(net, Z)
    S = gl.Segmenter.wrap(bright, ["dark", "bright"])
    D = gl.dissect(G, S, "body.3", n=16, progress=False)
    before, opened, fingerprint = G.levels("body.3").mean(), G.open("body.3", 0), G.fingerprint
    with torch.no_grad():
        if way == "step":
            net.body[3].weight.mul_(2)
        elif way == "data":
            for p in net.parameters():
                p.data.mul_(2)
        elif way == "load":
            net.load_state_dict({name: 2 * x for name, x in net.state_dict().items()})
        else:
            net.body[3].weight = nn.Parameter(2 * net.body[3].weight)
    assert not torch.allclose(G.levels("body.3").mean(), before)
    assert G.fingerprint != fingerprint
    with pytest.raises(ValueError, match=r"weights of .* have changed since"):
        opened.resume(opened.features)
    with pytest.raises(ValueError, match="dissect it again"):
        gl.ablation_effect(D, "dark", units=[0], n=8, progress=False)


def test_the_version_of_a_network_stays_while_it_is_used():
    G = gl.Generator.wrap(Counting(), Z)
    opened = G.open("body.3", 0)
    G.generate(range(3))
    assert torch.equal(opened.resume(opened.features), opened.image)


def test_versions():
    net = body()
    version = weights_version(net)
    net(torch.randn(2, Z))
    assert weights_version(net) == version
    net[0].bias.data.add_(1)
    assert weights_version(net) != version


# ---- one at a time


def test_one_lock_for_all_that_share_a_network():
    net = body()
    assert lock_of(net) is lock_of(nn.Sequential(net, nn.Identity()))
    assert lock_of(net) is not lock_of(copy.deepcopy(net))


def test_two_generators_of_one_network_do_not_disturb_each_other():
    net = Pure()
    A, B = gl.Generator.wrap(net, Z), gl.Generator.wrap(net, Z)
    plain, edited = B.generate(range(4)), A.generate(range(4), EDIT)
    wrong, stop = [], threading.Event()

    def edit():
        while not stop.is_set():
            if not torch.equal(A.generate(range(4), EDIT), edited):
                wrong.append("edited")

    thread = threading.Thread(target=edit)
    thread.start()
    for _ in range(60):
        if not torch.equal(B.generate(range(4)), plain):
            wrong.append("plain")
    stop.set()
    thread.join()
    assert wrong == []


def test_networks_are_found_where_functions_have_them():
    net = body()

    class Holder:
        def __init__(self):
            self.inner = {"net": [net]}

        def run(self, x):
            return net(x)

    for thing in (net, net.forward, lambda x: net(x), Holder(), Holder().run, [net], lambda x, n=net: n(x)):
        assert modules_in(thing) == [net]
    assert modules_in(named) == []


# ---- compiled and scripted ones


def test_compiled_networks_are_looked_into():
    net = Pure()
    whole = gl.Generator.wrap(torch.compile(net, backend="eager"), Z)
    part = Pure()
    part.body = torch.compile(part.body, backend="eager")
    inner = gl.Generator.wrap(part, Z)
    expected = gl.Generator.wrap(Pure(), Z).generate(range(4), EDIT)
    assert torch.equal(whole.generate(range(4), EDIT), expected)
    assert torch.equal(inner.generate(range(4), gl.ablate("body._orig_mod.3", [0, 1])), expected)


@pytest.mark.parametrize("make", [lambda: torch.jit.script(body()), lambda: torch.jit.trace(body(), torch.zeros(2, Z))])
def test_scripts_are_refused_with_the_reason(make):
    with pytest.raises(ValueError, match="TorchScript, whose layers can be neither read nor edited"):
        gl.Generator.wrap(make(), Z)


def test_arguments_by_name():
    class Named(Pure):
        def forward(self, z, c, *, noise_mode="random"):
            x = super().forward(z)
            return x if noise_mode == "const" else x + torch.randn_like(x)

    G = gl.Generator.wrap(Named(), Z, inputs=lambda z, labels: {"z": z, "c": None, "noise_mode": "const"})
    assert torch.equal(G.generate([3], EDIT), gl.Generator.wrap(Pure(), Z).generate([3], EDIT))
    assert torch.allclose(G.open("body.3", [3]).edited(EDIT), G.generate([3], EDIT), atol=1e-6)


# ---- interrupts


HOOKED = ("ganlens/borrowed.py", "models/hooks.py")
MEASURED = (*HOOKED, "models/opened.py", "dissection/passes.py", "effects/context.py", "effects/single_units.py")


def interrupted_everywhere(job, clean, most: int = 400, files: tuple = HOOKED) -> int:
    """Interrupt a job after every call in the files that set hooks and modes; how many places were tried."""
    places: dict = {}

    def after_call(code, at) -> bool:
        if code not in places:
            steps = list(dis.get_instructions(code))
            kinds = ("CALL", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD")
            places[code] = {b.offset for a, b in pairwise(steps) if a.opname in kinds}
        return at in places[code]

    for k in range(most):
        count, hit = 0, False

        def local(frame, event, arg, k=k):
            nonlocal count, hit
            if event == "opcode" and after_call(frame.f_code, frame.f_lasti):
                count += 1
                if count == k + 1 and not hit:
                    hit = True
                    raise KeyboardInterrupt
            return local

        def trace(frame, event, arg, local=local):
            if frame.f_code.co_filename.endswith(files):
                frame.f_trace_opcodes = True
                return local
            return None

        known = sys.gettrace()
        sys.settrace(trace)
        try:
            job()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(known)
        assert clean(), f"something is left behind after interrupt {k}"
        if not hit:
            return k
    return most


@pytest.mark.parametrize("what", ["generate", "open", "resume", "read", "effect"])
def test_an_interrupt_leaves_nothing_behind(what):
    net = Pure().train()
    G, S = gl.Generator.wrap(net, Z), gl.Segmenter.wrap(bright, ["dark", "bright"])
    D, opened, z = gl.dissect(G, S, "body.3", n=8, progress=False), G.open("body.3", 0), G.latents([0])
    jobs = {
        "generate": lambda: G.generate([0], EDIT),
        "open": lambda: G.open("body.3", 0, stop=lambda: False),
        "resume": lambda: opened.resume(opened.features),
        "read": lambda: G.read(z, ["body.3"]),
        "effect": lambda: gl.ablation_effect(D, "dark", units=[0], n=4, draws=0, progress=False),
    }
    assert interrupted_everywhere(jobs[what], partial(is_clean, net)) > 20


@pytest.mark.slow
@pytest.mark.parametrize("what", ["dissect", "context", "unit effects"])
def test_an_interrupt_inside_a_measurement_leaves_nothing_behind(what):
    net = Pure().train()
    G, S = gl.Generator.wrap(net, Z), gl.Segmenter.wrap(bright, ["dark", "bright"])
    D = gl.dissect(G, S, "body.3", n=8, progress=False)
    jobs = {
        "dissect": lambda: gl.dissect(G, S, "body.3", n=4, batch_size=2, progress=False),
        "context": lambda: gl.context(D, "dark", [0], n=1, stride=4, progress=False),
        "unit effects": lambda: gl.unit_effects(D, [0], n=2, progress=False),
    }
    assert interrupted_everywhere(jobs[what], partial(is_clean, net), most=2000, files=MEASURED) > 100


def is_clean(net: nn.Module) -> bool:
    """Whether nothing is locked, hooked, replaced or put into evaluation mode."""
    lock = lock_of(net)
    free = lock.acquire(blocking=False) and not lock.release()
    modules = list(net.modules())
    hooks = any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in modules)
    return bool(free) and not hooks and all(m.training for m in modules)


def test_borrowed_networks_are_given_back_after_an_error():
    net = body().train()

    def fail():
        with borrowed(net):
            assert not net.training
            raise RuntimeError("as asked")

    with pytest.raises(RuntimeError, match="as asked"):
        fail()
    assert net.training
