import type { ComponentChildren, JSX } from "preact";
import { path } from "../api";
import { useAction, useEvery, useLoad } from "../hooks";
import { Asking, Facts, Loading, Notice, Page, Section, State, Time } from "../parts/common";
import { Explanation } from "../parts/explanation";
import { Files } from "../parts/files";
import { Happened } from "../parts/happened";
import { Metrics } from "../parts/metrics";
import { Ports } from "../parts/ports";
import { Processes } from "../parts/processes";
import { Receipt } from "../parts/receipt";
import { link } from "../router";
import { useSession } from "../session";
import { inline, short } from "../text";
import type { SandboxView } from "../views";
import { Labels } from "./executions";

const REFRESH_MS = 5000;

interface Tab {
  name: string;
  title: string;
  permission: string;
  lives: boolean;
  show: (sandbox: SandboxView, rest: string[]) => ComponentChildren;
}

const TABS: Tab[] = [
  { name: "", title: "Facts", permission: "sandbox:read", lives: false, show: (of) => <About of={of} /> },
  {
    name: "processes",
    title: "Processes and terminals",
    permission: "sandbox:read",
    lives: true,
    show: ({ id }, [number]) => <Processes sandbox={id} open={number} />,
  },
  {
    name: "files",
    title: "Files",
    permission: "sandbox:use",
    lives: true,
    show: ({ id }, [folder]) => <Files sandbox={id} folder={folder ?? "/"} />,
  },
  {
    name: "ports",
    title: "Ports",
    permission: "sandbox:read",
    lives: true,
    show: ({ id }) => <Ports sandbox={id} />,
  },
  {
    name: "events",
    title: "Events and egress",
    permission: "sandbox:read",
    lives: false,
    show: (of) => <Happened sandbox={of.id} policy={of.egress_policy} />,
  },
];

export function Sandbox({ parts }: { parts: string[] }): JSX.Element {
  const [id = "", tab = "", ...rest] = parts;
  const { api, can } = useSession();
  const found = useLoad((signal) => api.get<SandboxView>(path`/v1/sandboxes/${id}`, {}, signal), id);
  const ended = found.data?.state === "ended";
  useEvery(REFRESH_MS, ended ? nothing : found.reload);
  const acting = useAction(async (what: string) => {
    if (what === "end") await api.send("DELETE", path`/v1/sandboxes/${id}`);
    else await api.send("POST", path`/v1/sandboxes/${id}/${what}`);
    found.reload();
  });
  const state = found.data?.state ?? "";
  const uses = can("sandbox:use");
  return (
    <Page
      title={`Sandbox ${short(id)}`}
      actions={
        <>
          {uses && state === "running" && (
            <button type="button" disabled={acting.busy} onClick={() => void acting.run("pause")}>
              Pause
            </button>
          )}
          {uses && state === "paused" && (
            <button type="button" disabled={acting.busy} onClick={() => void acting.run("resume")}>
              Resume
            </button>
          )}
          {can("sandbox:delete") && state && !ended && (
            <Asking
              label="End"
              question="End this sandbox? Its processes and files are gone then."
              act={() => acting.run("end")}
            />
          )}
        </>
      }
    >
      <Notice problem={acting.problem} />
      <Loading of={found}>
        {(sandbox) => {
          const tabs = TABS.filter((each) => can(each.permission) && !(ended && each.lives));
          const open = tabs.find((each) => each.name === tab);
          return (
            <>
              <nav class="tabs" aria-label="Parts of the sandbox">
                {tabs.map((each) => (
                  <a
                    key={each.name}
                    href={link("sandboxes", id, ...(each.name ? [each.name] : []))}
                    aria-current={each === open ? "page" : undefined}
                  >
                    {each.title}
                  </a>
                ))}
              </nav>
              {open ? open.show(sandbox, rest) : <p>The sandbox has ended, or has no such part.</p>}
            </>
          );
        }}
      </Loading>
    </Page>
  );
}

function nothing(): void {}

function About({ of }: { of: SandboxView }): JSX.Element {
  const { limits } = of;
  return (
    <>
      <Section title="Facts">
        <Facts
          of={[
            ["State", <State of={of.state} />],
            ["Why", of.detail ? inline(of.detail) : "–"],
            ["Id", <code>{of.id}</code>],
            ["Image", inline(of.image)],
            ["Size", inline(of.size)],
            ["Limits", `${limits.cpu} CPU, ${limits.memory_mb} MiB memory, ${limits.disk_mb} MiB disk`],
            ["Isolation", of.isolation],
            ["Egress policy", of.egress_policy ? inline(of.egress_policy) : "none"],
            ["Labels", <Labels of={of.metadata} />],
            ["Created", <Time at={of.created_at} />],
            ["Ends", <Time at={of.ended_at ?? of.expires_at} />],
          ]}
        />
      </Section>
      <Section title="What it used in the last hour">
        <Metrics sandbox={of.id} />
      </Section>
      <Section title="What happened">
        <Explanation address={path`/v1/sandboxes/${of.id}/explanation`} turn={of.state} />
      </Section>
      {of.state === "ended" && (
        <Section title="Receipt">
          <Receipt address={path`/v1/sandboxes/${of.id}/receipt`} name={`receipt-${of.id}.json`} />
        </Section>
      )}
    </>
  );
}
