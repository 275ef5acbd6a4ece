// Required by Node before a program that may use the egress proxy: fetch follows the environment's
// proxy by itself only from Node 24 on. Hosts of this sandbox are reached directly.
"use strict";

const { Agent, ProxyAgent, setGlobalDispatcher } = require("/usr/share/nodejs/undici");

const OWN = new Set(["localhost", "127.0.0.1", "[::1]"]);
const proxy = new ProxyAgent(process.env.HTTPS_PROXY);

class Choosing extends Agent {
  dispatch(options, handler) {
    const own = OWN.has(new URL(options.origin).hostname);
    return own ? super.dispatch(options, handler) : proxy.dispatch(options, handler);
  }
}

setGlobalDispatcher(new Choosing());
