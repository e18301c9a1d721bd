"""Release: the one place that lists the steps in order, and remembers which of them are up to date."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from modelrel import __version__, extras, originals, records
from modelrel.attestation.keys import Signer
from modelrel.delivered import Attestation, Package, Promotion, Pushed, SmokeReport
from modelrel.environments import Worker
from modelrel.errors import ModelrelError, Refused
from modelrel.formats import FORMATS
from modelrel.policy import Policy
from modelrel.probes import loss
from modelrel.promoted import Change
from modelrel.registry import Registry
from modelrel.registry.reference import Reference
from modelrel.steps import attest as attest_step
from modelrel.steps import convert as convert_step
from modelrel.steps import evidence, summary
from modelrel.steps import inspect as inspect_step
from modelrel.steps import into as into_step
from modelrel.steps import package as package_step
from modelrel.steps import promote as promote_step
from modelrel.steps import pull as pull_step
from modelrel.steps import push as push_step
from modelrel.steps import smoke as smoke_step
from modelrel.steps import verify as verify_step
from modelrel.steps.inspect import Verdict
from modelrel.steps.stages import Listener, Outcome, Stage, StageResult, Value, describe, same, sha256, weigh
from modelrel.values import (
    ConvertedModel,
    ConvertOptions,
    PackageOptions,
    ParityReport,
    SourceModel,
    VerifyOptions,
    digest,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOptions:
    """What the user asks of a release. `force` names the stages that are done again (`pull`, `convert`, ...)."""

    format: str = "onnx"
    convert: ConvertOptions = field(default_factory=ConvertOptions)
    verify: VerifyOptions = field(default_factory=VerifyOptions)
    package: Mapping[str, PackageOptions] = field(default_factory=dict)
    force: frozenset[str] = frozenset()


class Release:
    """One model version on its way. Every method does the earlier steps that are missing, then its own."""

    def __init__(
        self, located: Reference, registry: Registry, dist: Path, options: ReleaseOptions, listener: Listener
    ) -> None:
        """Take a reference that `pull.locate` has resolved. Call the methods inside `locked(release.folder)`."""
        self.located = located
        self.registry = registry
        self.options = options
        self.listener = listener
        self.folder = pull_step.release_folder(located, dist)
        self.results: list[StageResult] = []
        self._done: dict[str, object] = {}
        self._changed = False

    def source(self) -> SourceModel:
        """Pull."""
        stage = Stage(
            "pull",
            self.folder / "SourceModel.json",
            SourceModel,
            pull_step.key(self.located, self.registry),
            {"folder": self.folder},
        )
        return self._step(stage, lambda: pull_step.pull(self.located, self.registry, self.folder, self.listener.note))

    def possible(self, *, quick: bool) -> dict[str, Verdict]:
        """Return format -> whether the model can become it: by former records, or by trying, unless it is `quick`."""
        return {form: self._possible(self.source(), form, quick=quick) for form in FORMATS}

    def _possible(self, source: SourceModel, form: str, *, quick: bool) -> Verdict:
        known, options = inspect_step.by_flavor(source, form), self.options.convert
        if known.can == "no":
            return known
        if found := inspect_step.by_record(source, form):
            return found
        if quick or not convert_step.at_hand(source, form, options.env):
            return known if quick else inspect_step.not_at_hand(source)
        start = self._begin(f"try {form}")
        try:
            estimator = convert_step.tried(source, form, options, self.listener.note)
        except ModelrelError as stop:
            verdict = inspect_step.by_refusal(stop, round(time.perf_counter() - start, 3))
        else:
            verdict = inspect_step.by_trial(form, estimator, round(time.perf_counter() - start, 3))
        self._end(f"try {form}", "done", verdict.can, start)
        return verdict

    def converted(
        self,
        form: str,
        begun: Callable[[SourceModel], object] = lambda _: None,
        other: ConvertOptions | None = None,
    ) -> ConvertedModel:
        """Convert to a format (the copy is not proven yet: ask for `parity`); `begun`: see `convert`."""
        source, options = self.source(), other or self.options.convert
        record = self.folder / form / options.place / "ConvertedModel.json"
        called = f"convert {form} {Path(options.place).name}".strip()
        if options.copy is None and "convert" not in self.options.force:
            # whoever handed in a copy, or made it smaller, means that: it stands until the model changes, or --force
            chosen = None if options.quantize or options.tool else records.read(ConvertedModel, record, source=source)
            if chosen is not None and (chosen.handed_in or chosen.quantize or chosen.tool) and same(chosen, options):
                return self._skip(called, chosen)
        tool = options.tool if options.tool != "none" else ""
        own = convert_step.environment(source, form, options.env, tool)
        asked = [
            form, options.opset, options.operators, own.digest if own else "", sha256(options.copy),
            options.signature, asdict(options.interface),
        ]  # fmt: skip
        if options.quantize not in ("", "none"):
            rows = [sha256(options.data), options.label] if options.quantize == "int8" else []
            asked += [options.quantize, *rows]
        asked += [tool, extras.version(tool)] if tool else []
        stage = Stage(
            called,
            record,
            ConvertedModel,
            self._key("convert", source, asked, convert_step.tools(form)),
            {"source": source},
        )
        return self._step(stage, lambda: convert_step.convert(source, form, options, self.listener.note, begun))

    def parity(self, form: str = "", other: ConvertOptions | None = None) -> ParityReport:
        """Verify the copy in a format ("": the one that was asked for), or another that is made by `other` options.

        What will answer as the original loads while the copy is made, in a process of its own.
        """
        with ExitStack() as stack:
            ahead: list[Worker] = []

            def begun(source: SourceModel) -> None:
                ahead.extend(stack.enter_context(one).start() for one in verify_step.ahead(source, self.options.verify))

            converted = self.converted(form or self.options.format, begun, other)
            return self._parity(converted, *ahead)

    def _parity(self, converted: ConvertedModel, *ahead: Worker) -> ParityReport:
        options, form = self.options.verify, converted.format
        made = originals.wanted(converted.source, options.env)
        own = made.digest if made else ""
        asked = [options.tolerance.rtol, options.tolerance.atol, options.rows, options.seed, sha256(options.data), own]
        asked += [options.label] if options.label else []
        asked += [dict(options.loss)] if converted.quantize else []
        record = converted.path.parent / "ParityReport.json"
        called = f"verify {form} {record.parent.relative_to(self.folder / form).name}".strip()
        if options.data is None and "verify" not in self.options.force:
            # a proof on the user's own data is worth more than ours: it stands until the model changes
            found = records.read(ParityReport, record, converted=converted)
            if found is not None and found.data_sha256 and found.environment == own and self._asked_no_more(found):
                return self._skip(called, found)
        stage = Stage(
            called,
            record,
            ParityReport,
            self._key("verify", converted, asked, convert_step.tools(form)),
            {"converted": converted},
            lambda found: found.complete or found.budget_s >= options.budget,
        )
        return self._step(stage, lambda: verify_step.verify(converted, options, self.listener.note, *ahead))

    def _asked_no_more(self, found: ParityReport) -> bool:
        asked = self.options.verify.tolerance
        lax = found.loss is not None and loss.laxer(found.loss, self.options.verify)
        return found.tolerance.rtol <= asked.rtol and found.tolerance.atol <= asked.atol and not lax

    def packaged(self, target: str) -> Package:
        """Package for one target; one that deploys an image comes after the packaging of that."""
        form = self._form(target)
        image = self._image(target, form)
        parity = self.parity(form)
        options = package_step.suited(parity, target, self.options.package.get(target, PackageOptions()))
        variants = self._variants(target, options, parity)
        asked: list[object] = [
            target,
            {**asdict(options), "templates": "", "wheelhouse": ""},
            image.digest if image else "",
            [records.identity(one) for one in variants],
        ]
        stage = Stage(
            f"package {target}",
            self.folder / form / target / "Package.json",
            Package,
            self._key("package", parity, asked, package_step.tools(target, options)),
            {"parity": parity, "variants": variants},
            lambda package: package_step.stands(package, options),
        )

        def run() -> Package:
            return package_step.package(parity, target, options, self.listener.note, image, variants=variants)

        return self._step(stage, run)

    def _variants(self, target: str, options: PackageOptions, parity: ParityReport) -> tuple[ParityReport, ...]:
        """Convert and verify the other copies that a package carries; raises `Refused` where one of them does not pass.

        None is left out quietly: whoever asked for a file gets it, or hears why not.
        """
        found = []
        for name, mode in package_step.variants(target, options).items():
            other = replace(self.options.convert, quantize=mode, place=f"{evidence.VARIANTS}/{name}")
            try:
                found += [] if mode == (parity.converted.quantize or "none") else [self.parity("tflite", other)]
            except Refused as error:
                raise Refused(f"the variant {name}: {error.message}", error.hint) from error
        return tuple(found)

    def _form(self, target: str) -> str:
        return package_step.form(target, self.options.package.get(target, PackageOptions()).format)

    def _image(self, target: str, form: str) -> Package | None:
        """Return the packaged image that a target deploys: one asked for now, else one on disk, else a new one."""
        kinds = package_step.of(target).IMAGES
        if not kinds or self.options.package.get(target, PackageOptions()).image:
            return None
        asked = [kind for kind in kinds if kind in self.options.package]
        there = [kind for kind in kinds if (self.folder / form / kind / "Package.json").is_file()]
        if asked:
            return self.packaged(asked[0])
        return (self._packaged_before(there[0]) if there else None) or self.packaged((there or kinds)[0])

    def smoked(self, target: str, *, as_packaged: bool = False) -> SmokeReport:
        """Smoke-test the built artifact of one target; `as_packaged` takes the package on disk, however made."""
        package = (self._packaged_before(target) if as_packaged else None) or self.packaged(target)
        stage = Stage(
            f"smoke {target}",
            self.folder / self._form(target) / target / "SmokeReport.json",
            SmokeReport,
            self._key("smoke", package, [], {}),
            {"package": package},
        )
        return self._step(stage, lambda: smoke_step.smoke(package, self.listener.note))

    def _packaged_before(self, target: str) -> Package | None:
        form = self._form(target)
        record = self.folder / form / target / "Package.json"
        parity = self.parity(form)
        variants = evidence.variants(record.parent, parity.source, self._label)
        found = records.read(Package, record, parity=parity, variants=variants)
        if found is None or not package_step.stands(found, PackageOptions(render_only=True)):
            return None
        return self._skip(f"package {target}", found)

    def pushed(self, target: str, name: str = "", *, as_packaged: bool = False) -> Pushed:
        """Put the package of one target into a registry of images, once it is smoke-tested, with what was signed of it.

        `name` is REGISTRY/NAME:TAG (else that of the options); `as_packaged` takes the package on disk, however made.
        """
        name = push_step.checked(target, name or self.options.package.get(target, PackageOptions()).push)
        smoke = self.smoked(target, as_packaged=as_packaged)
        package, signed = smoke.package, evidence.signed(smoke)
        stage = Stage(
            f"push {target}",
            self.folder / self._form(target) / target / "Pushed.json",
            Pushed,
            self._key("push", package, [name, *(file.sha256 for file in (signed.files if signed else ()))], {}),
            {"package": package},
            push_step.stands,
        )
        before = push_step.before(self.folder.parent)
        return self._step(stage, lambda: push_step.push(package, name, self.listener.note, before, signed))

    def attested(self, smoke: SmokeReport, signer: Signer | None = None) -> Attestation:
        """State for others what is proven of a package, signed where there is a signer; what is signed stays so.

        The statements are as old as the smoke test, whoever signs them later.
        """
        target, form = smoke.package.target, smoke.package.converted.format
        record = self.folder / form / target / "Attestation.json"
        before = records.read(Attestation, record, None, smoke=smoke)

        def stage(who: str) -> Stage[Attestation]:
            key = self._key("attest", smoke, [who, [file.sha256 for file in attest_step.standing(smoke.package)]], {})
            return Stage(f"attest {target}", record, Attestation, key, {"smoke": smoke})

        signed = stage(before.key) if before and before.key and signer is None else None
        if signed and records.read(Attestation, record, signed.key, smoke=smoke) and "attest" not in self.options.force:
            return self._step(signed, lambda: before)  # type: ignore[arg-type,return-value]
        at = before.at if before else attest_step.now()
        return self._step(stage(signer.public.id if signer else ""), lambda: attest_step.attest(smoke, signer, at))

    def evidence(self) -> tuple[SmokeReport, ...]:
        """Return the smoke reports on disk, one for each packaged target, without making anything.

        Raises `Refused` where a record is missing or is about other bytes than those on disk.
        """
        return evidence.of(self.folder, self._label, self.options.format)

    def promoted(
        self, smokes: tuple[SmokeReport, ...], change: Change, policy: Policy, *, dry_run: bool = False,
        into: tuple[Registry, str] | into_step.Route | None = None,
    ) -> Promotion:  # fmt: skip
        """Move an alias (or stage) to this version, if the policy lets it; `dry_run` only says what would change.

        `into` is another registry, and the name of the model there: the version is carried over first; or a route.
        """
        stage, start = f"promote {change.to}", self._begin(f"promote {change.to}")
        attestations = evidence.attested(smokes, policy.public_keys)
        route = into_step.route(self.registry, into, smokes)
        planned = promote_step.plan(smokes, route, change, policy, attestations)
        record = self.folder / f"Promotion.{route.called(planned.to)}.json"
        key = self._key("promote", list(smokes), [change.kind, planned.to, planned.registry], {})
        was = planned.previous or "nobody"
        if promote_step.recorded(planned, route.registry):
            found = records.read(Promotion, record, key, smokes=smokes)
            self._end(stage, "up to date", f"{change.kind} {planned.to} is at version {planned.version} already", start)
            return found or planned
        if dry_run:
            detail = f"{change.kind} {planned.to}: {was} → {planned.version or 'a copy'}"
            self._end(stage, "would be refused" if planned.verdict.refused else "would change", detail, start)
            return planned
        planned = into_step.carried_over(planned, route, self.listener.note)
        done = promote_step.promote(planned, route.registry, self.listener.note)
        records.write(done, record, key)
        self._end(stage, "done", f"{change.kind} {planned.to}: {was} → {planned.version}", start)
        return done

    def notes(self) -> list[str]:
        """Return the sentences that the stages leave for the user: how to build, how to deploy, what to know."""
        return list(dict.fromkeys(note for value in self._done.values() for note in getattr(value, "notes", ())))

    def summary(self) -> Path:
        """Write `release.json`, which names every file of the release with its sha256; return its path."""
        about = {"model": self.located.name, "version": pull_step.version_of(self.located)}
        about["uri"] = pull_step.uri_of(self.located)
        known = {file.path: file for value in self._done.values() for file in records.files_of(value)}
        return summary.write(self.folder, about, known)

    def relisted(self) -> None:
        """Bring `release.json`, where there is one, in line with what was made or refused meanwhile."""
        if self._changed and (self.folder / summary.NAME).is_file():
            self.summary()

    # the machinery

    @property
    def _label(self) -> str:
        return f"{self.located.name}/{pull_step.version_of(self.located)}"

    def _key(self, step: str, made_from: object, asked: list[object], tools: Mapping[str, str]) -> str:
        parents = made_from if isinstance(made_from, list) else [made_from]
        return digest([step, __version__, [records.identity(one) for one in parents], asked, dict(tools)])

    def _step(self, stage: Stage[Value], run: Callable[[], Value]) -> Value:
        if stage.name in self._done:
            return self._done[stage.name]  # type: ignore[return-value]
        if stage.name.partition(" ")[0] not in self.options.force:
            found = records.read(stage.kind, stage.record, stage.key, **dict(stage.parents))
            if found is not None and stage.holds(found):
                return self._skip(stage.name, found)
        start = self._begin(stage.name)
        self._changed = True
        # what is about to be replaced must not be described by an old record if we die half-way
        stage.record.unlink(missing_ok=True)
        value = run()
        records.write(value, stage.record, stage.key)
        stage.record.with_name(f"{stage.record.stem}.refused.json").unlink(missing_ok=True)
        self._done[stage.name] = value
        self._end(stage.name, "done", describe(value), start, weigh(value))
        return value

    def _skip(self, stage: str, value: Value) -> Value:
        if stage not in self._done:
            start = self._begin(stage)
            self._done[stage] = value
            self._end(stage, "up to date", describe(value), start, weigh(value))
        return value

    def _begin(self, stage: str) -> float:
        self.listener.begin(stage)
        return time.perf_counter()

    def _end(self, stage: str, outcome: Outcome, detail: str, start: float, size: int = 0) -> None:
        seconds = time.perf_counter() - start
        result = StageResult(stage=stage, outcome=outcome, detail=detail, seconds=round(seconds, 3), size=size)
        self.results.append(result)
        self.listener.end(result)
