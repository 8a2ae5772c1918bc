// A webhook handler on Express, with the checks that Twitch's documents ask for: signature, age, repeated ids.
import { createHmac, timingSafeEqual } from "node:crypto";
import express from "express";

const [port, secret] = process.argv.slice(2);
const seen = new Set();
const app = express();
app.use(express.raw({ type: "application/json" }));
app.post("/", (request, response) => {
  const head = (name) => request.header(`Twitch-Eventsub-Message-${name}`);
  const mac = createHmac("sha256", secret).update(head("Id") + head("Timestamp")).update(request.body).digest("hex");
  const given = head("Signature") ?? "";
  const expected = `sha256=${mac}`;
  if (given.length !== expected.length || !timingSafeEqual(Buffer.from(given), Buffer.from(expected))) {
    return response.sendStatus(403);
  }
  const fresh = Date.now() - Date.parse(head("Timestamp")) < 600_000;
  if (fresh && !seen.has(head("Id")) && head("Type") === "notification") {
    seen.add(head("Id"));
    console.log(JSON.parse(request.body).event.broadcaster_user_login);
  }
  return response.sendStatus(204);
});
app.listen(Number(port), "127.0.0.1");
