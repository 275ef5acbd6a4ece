import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { path } from "../api";
import { useAction, useLoad } from "../hooks";
import { useSession } from "../session";
import { inline } from "../text";
import { Asking, Choice, Form, Input, Loading, Notice, Section, Table, Time } from "./common";

interface Port {
  port: number;
  public: boolean;
  url: string;
  opened_by: string;
  expires_at: string;
}

export function Ports({ sandbox }: { sandbox: string }): JSX.Element {
  const { api, can } = useSession();
  const [token, setToken] = useState<{ port: number; token: string } | null>(null);
  const found = useLoad(
    (signal) => api.get<{ items: Port[] }>(path`/v1/sandboxes/${sandbox}/ports`, {}, signal),
    sandbox,
  );
  const opening = useAction(async (values: Record<string, string>) => {
    const made = await api.send<Port & { token: string | null }>(
      "POST",
      path`/v1/sandboxes/${sandbox}/ports/${values["port"] ?? ""}`,
      { public: values["who"] === "everybody" },
    );
    setToken(made.token ? { port: made.port, token: made.token } : null);
    found.reload();
  });
  const closing = useAction(async (port: number) => {
    await api.send("DELETE", path`/v1/sandboxes/${sandbox}/ports/${port}`);
    found.reload();
  });
  return (
    <Section title="Open ports">
      <Notice problem={closing.problem} />
      <Loading of={found}>
        {({ items }) => (
          <Table
            label="Open ports"
            head={["Port", "Who may reach it", "Address", "Opened by", "Until", ""]}
            empty="No port is open."
            rows={items.map((each) => ({
              key: each.port,
              cells: [
                each.port,
                each.public ? "everybody" : "those with its token or a key",
                // A page of strangers: it is named here, and opened by whoever means to.
                <code>{inline(each.url)}</code>,
                inline(each.opened_by),
                <Time at={each.expires_at} />,
                can("sandbox:use") && (
                  <Asking
                    label="Close"
                    name={`Close port ${each.port}`}
                    question={`Close port ${each.port}?`}
                    act={() => closing.run(each.port)}
                  />
                ),
              ],
            }))}
          />
        )}
      </Loading>
      {token && (
        <p class="notice" role="status">
          The token of port {token.port}, shown once: <code>{token.token}</code>
        </p>
      )}
      {can("sandbox:use") && (
        <Form
          label="Open a port"
          button="Open"
          busy={opening.busy}
          problem={opening.problem}
          sent={(values) => void opening.run(values)}
        >
          <div class="filters">
            <Input label="Port" name="port" type="number" min={1} max={65535} required />
            <Choice label="Who may reach it" name="who" options={["holders of its token", "everybody"]} first="holders of its token" />
          </div>
        </Form>
      )}
    </Section>
  );
}
