"""The offers of this deployment, and the part of them that a tenant may have."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from runner.egress.policy import Policy, Rule, rule_from_json, rule_to_json
from runner.quotas.sizes import resolve_limits
from runner.quotas.standing import RunStanding
from runner.quotas.tiers import ceiling
from runner.store import egress_policies, projects, templates
from runner.store.templates import StoredTemplate, TemplateState
from runner.store.tenants import Tenant
from runner.store.transaction import Transaction
from runner.tenants.policies import Entry, ceilings, permitted
from runner.words.errors import Invalid
from runner.words.execution import JSON
from runner.words.resources import Limits
from runner.words.sandbox import USER, Isolation
from runner.words.templates import DEFAULT_TAG, template_in


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOffer:
    """The sandboxes that a tenant may have. Each method raises Invalid and names the field."""

    sizes: Mapping[str, Limits]
    images: Mapping[str, frozenset[str]]
    """The languages that each image can run; the first image is the default."""
    isolations: tuple[Isolation, ...]
    max_limits: Limits
    required_isolation: Isolation | None
    egress_ceilings: tuple[Policy, ...]
    """The deployment's ceiling, and the tenant's if it has one: a rule must be within each."""
    egress_policy: tuple[Rule, ...] | None = None
    """The rules of the policy that the order names; None if the tenant has no such policy."""
    image_names: Mapping[str, str] = field(default_factory=dict)
    """Further names, and which of the images each stands for."""
    template: StoredTemplate | None = None
    """The template that the order names; None if it names an image, or nothing there is."""
    no_template: str | None = None
    """Why the order's name stands for no template, if one was begun by that name."""

    def size(self, name: str) -> Limits:
        """Return the limits of a size."""
        if name not in self.sizes:
            raise Invalid(f"there is no size {name!r}; choose one of {listed(self.sizes)}", "size")
        return self.sizes[name]

    def limits(self, size: Limits, own: Mapping[str, float], *, named: bool) -> Limits:
        """Return the limits of an order: its size's, its template's, and its own changes.

        A size that the order has `named` counts instead of the template's.
        """
        given = self.template.limits if self.template and not named else {}
        try:
            return resolve_limits(size, {**given, **own}, self.max_limits)
        except Invalid as error:
            if error.field.removeprefix("limits.") not in given.keys() - own.keys():
                raise
            why = f"its template has other resources than this tenant may have: {error.detail}"
            raise Invalid(f"{why}. Name a size, or this limit", error.field) from None

    def image(self, name: str | None) -> str:
        """Return the name of the image or template, or of the default image."""
        if self.template is not None:
            return self.template.image
        if name is None:
            return next(iter(self.images))
        image = image_called(name, self.images, self.image_names)
        if image is None:
            known = listed(names_of(self.images, self.image_names))
            raise Invalid(
                self.no_template
                or f"there is no image {name!r}; choose one of {known}, or a template of yours",
                "image",
            )
        return image

    def environment(
        self, own: Mapping[str, str], secret_env: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Return the variables of an order, with those of its template that it does not set."""
        given = self.template.env if self.template else {}
        return {name: value for name, value in given.items() if name not in secret_env} | dict(own)

    def isolation(self, wanted: Isolation | None) -> Isolation:
        """Return the isolation that was asked for, else the tenant's, else the deployment's."""
        required = self.required_isolation
        isolation = wanted or required or self.isolations[0]
        if required and isolation is not required:
            raise Invalid(f"this tenant must use {required.value}", "isolation")
        if isolation not in self.isolations:
            raise Invalid(
                f"this deployment does not offer {isolation.value}; "
                f"it offers {', '.join(self.isolations)}",
                "isolation",
            )
        return isolation

    def egress(
        self, entries: Sequence[Entry], policy: str | None
    ) -> tuple[Mapping[str, JSON], ...]:
        """Return these rules and the named policy's, as they are stored."""
        if policy is not None and self.egress_policy is None:
            raise Invalid(f"there is no egress policy {policy!r}", "egress_policy")
        own = permitted(entries, self.egress_ceilings, field="egress")
        rules = dict.fromkeys([*own, *(self.egress_policy or ())])
        return tuple(rule_to_json(rule) for rule in rules)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The offers of this deployment to any tenant."""

    sizes: Mapping[str, Limits]
    images: Mapping[str, frozenset[str]]
    isolations: tuple[Isolation, ...]
    egress_ceiling: Policy
    image_names: Mapping[str, str] = field(default_factory=dict)
    """Further names that the operator gives to images, such as `python:3.12`."""
    users: Mapping[str, str] = field(default_factory=dict)
    """The name of each image's own user, where that is another than usual."""

    def user(self, image: str) -> str:
        """Return the name of an image's own user."""
        return self.users.get(image, USER)

    async def offer(
        self,
        tx: Transaction,
        tenant: Tenant,
        standing: RunStanding,
        egress_policy: str | None,
        image: str | None = None,
    ) -> SandboxOffer:
        """Return what the tenant may have, with the egress policy and the template of that name."""
        template = no_template = None
        if image is not None and image not in self.images:
            template = await named_template(tx, image)
            no_template = await why_unbuilt(tx, image) if template is None else None
        policy = egress_policy and await egress_policies.get(tx, egress_policy)
        return SandboxOffer(
            sizes=self.sizes,
            images=self.images,
            isolations=self.isolations,
            max_limits=ceiling(tenant.terms.max_limits, standing.quotas, self.sizes),
            required_isolation=tenant.terms.required_isolation,
            egress_ceilings=ceilings(self.egress_ceiling, tenant.terms),
            egress_policy=tuple(map(rule_from_json, policy.rules)) if policy else None,
            image_names=self.image_names,
            template=template,
            no_template=no_template,
        )


def image_called(name: str, images: Collection[str], names: Mapping[str, str]) -> str | None:
    """Return the image that a name stands for; None if there is none.

    The tags `latest` and `default` change nothing. A template of the same name and tag comes before
    a name that is not the image's own, so that no setting changes what sandboxes are made from.
    """
    if name in images:
        return name
    bare = name.removesuffix(":latest").removesuffix(f":{DEFAULT_TAG}")
    found = names.get(name) or names.get(bare) or bare
    return found if found in images else None


def names_of(images: Collection[str], names: Mapping[str, str]) -> set[str]:
    """Return all names by which somebody may ask for an image."""
    return {*images, *(name for name, image in names.items() if image in images)}


async def named_template(tx: Transaction, name: str) -> StoredTemplate | None:
    """Return the template of this `name`, `name:tag` or `name@id`, if it was built.

    By a name and a tag, the tenant's own comes before the operator's.
    """
    if (template_id := template_in(name)) is not None:
        found = await templates.get(tx, template_id)
        # One whose content is kept is tried before its build ends.
        usable = found and found.sha256 and found.state is not TemplateState.FAILED
        return found if found and usable and found.image == name else None
    bare, _, tag = name.partition(":")
    return await templates.named(tx, bare, tag or DEFAULT_TAG)


async def why_unbuilt(tx: Transaction, name: str) -> str | None:
    """Return why this `name`, `name:tag` or `name@id` is no template; None if none was begun."""
    if (template_id := template_in(name)) is not None:
        known = await templates.get(tx, template_id)
        begun = known if known and known.image == name else None
    else:
        bare = name.partition(":")[0]
        begun = next(iter(await templates.list_newest(tx, before=None, limit=1, name=bare)), None)
    if begun is None:
        return None
    if begun.state is TemplateState.FAILED:
        return f"the template {name!r} was not built: {begun.detail}"
    if begun.state is TemplateState.READY:
        return f"no build of this template has the tag that {name!r} names"
    return f"the template {name!r} is still being built: wait until its state is ready"


async def policy_in(tx: Transaction, project: str | None, own: str | None) -> str | None:
    """Return the name of the egress policy: the order's own, else its project's.

    Raises Invalid if the tenant has no such project.
    """
    if project is None:
        return own
    found = await projects.get(tx, project)
    if found is None:
        raise Invalid(f"there is no project {project!r}", "project")
    return own or found.egress_policy


def listed(names: Iterable[str]) -> str:
    """Return names in order, for a message."""
    return ", ".join(sorted(names))
