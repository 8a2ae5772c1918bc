// twurple's unmanaged webhook listener: somebody else keeps the subscriptions.
import { EventSubHttpListener, ReverseProxyAdapter } from "@twurple/eventsub-http";

const [port, secret, user] = process.argv.slice(2);
const listener = new EventSubHttpListener({
  managed: false,
  clientId: "client",
  adapter: new ReverseProxyAdapter({ hostName: "example.org", port: Number(port) }),
  secret,
});
listener.onStreamOnline(user, (event) => console.log(event.broadcasterName));
listener.start();
