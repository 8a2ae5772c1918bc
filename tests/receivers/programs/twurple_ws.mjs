// twurple's WebSocket listener, which keeps its subscriptions itself: every type that the library knows.
import { ApiClient } from "@twurple/api";
import { StaticAuthProvider } from "@twurple/auth";
import { EventSubWsListener } from "@twurple/eventsub-ws";
import { listenToAll } from "./twurple_all.mjs";

const [port, user, token] = process.argv.slice(2);
const authProvider = new StaticAuthProvider("sandbox", token);
const apiClient = new ApiClient({ authProvider });
const listener = new EventSubWsListener({ apiClient, url: `ws://localhost:${port}/ws` });
listenToAll(listener, user, { withApp: false });
listener.start();
