// Required by Node before a program that may use the egress proxy: Node follows the environment's
// proxy by itself only from Node 24 on. Makes every connection of fetch, http and https by CONNECT,
// with whatever agent; hosts of this sandbox, and others in NO_PROXY, are reached directly. What the
// proxy says when it refuses is the error's message.
"use strict";

const http = require("node:http");
const https = require("node:https");
const tls = require("node:tls");
const { Agent, setGlobalDispatcher } = require("/usr/share/nodejs/undici");

const proxy = new URL(process.env.HTTPS_PROXY);
const direct = (process.env.NO_PROXY ?? "").split(",").filter(Boolean);
const connects = { http: http.Agent.prototype.createConnection, https: https.Agent.prototype.createConnection };

function isDirect(host) {
  const name = host.toLowerCase().replace(/^\[|\]$/g, "").replace(/\.$/, "");
  return /^127\./.test(name) || direct.some((each) => name === each || name.endsWith(`.${each.replace(/^\./, "")}`));
}

function tunnel(host, port, done) {
  const authority = `${host.includes(":") && !host.startsWith("[") ? `[${host}]` : host}:${port}`;
  const options = { host: proxy.hostname, port: proxy.port, method: "CONNECT", path: authority };
  const request = http.request({ ...options, headers: { Host: authority }, agent: false });
  request.once("error", done);
  request.once("connect", (answer, socket, head) => {
    if (answer.statusCode !== 200) {
      socket.destroy();
      const error = new Error(`${answer.statusCode} ${answer.statusMessage}`);
      done(Object.assign(error, { code: "ERR_PROXY_TUNNEL", statusCode: answer.statusCode }));
      return;
    }
    if (head.length) socket.unshift(head);
    done(null, socket);
  });
  request.end();
}

function byTunnel(connect, secure) {
  return function createConnection(options, done) {
    const host = options?.host ?? "localhost";
    if (typeof done !== "function" || options.socketPath || isDirect(host)) return connect.apply(this, arguments);
    tunnel(host, options.port, (error, socket) => {
      if (error) done(error);
      else done(null, secure ? connect.call(this, { ...options, socket }) : socket);
    });
  };
}

http.Agent.prototype.createConnection = byTunnel(connects.http, false);
https.Agent.prototype.createConnection = byTunnel(connects.https, true);

const straight = new Agent();
const through = new Agent({
  connect({ hostname, port, protocol, servername }, done) {
    const secure = protocol === "https:";
    tunnel(hostname, port || (secure ? 443 : 80), (error, socket) => {
      if (error || !secure) return done(error, socket);
      const encrypted = tls.connect({ socket, servername: servername || hostname, ALPNProtocols: ["http/1.1"] });
      encrypted.once("error", done);
      encrypted.once("secureConnect", () => {
        encrypted.off("error", done);
        done(null, encrypted);
      });
    });
  },
});

class Choosing extends Agent {
  dispatch(options, handler) {
    const own = isDirect(new URL(options.origin).hostname);
    return (own ? straight : through).dispatch(options, handler);
  }
}

setGlobalDispatcher(new Choosing());
