// Listens to everything that a listener of twurple knows, and reads every property of every event.

function read(value, depth) {
  if (value === null || typeof value !== "object" || depth > 3) return;
  if (Array.isArray(value)) return value.forEach((entry) => read(entry, depth + 1));
  for (let type = Object.getPrototypeOf(value); type && type !== Object.prototype; type = Object.getPrototypeOf(type)) {
    for (const [name, property] of Object.entries(Object.getOwnPropertyDescriptors(type))) {
      if (property.get && !name.startsWith("_")) read(property.get.call(value), depth + 1);
    }
  }
}

export function listenToAll(listener, user, { withApp }) {
  listener.onSubscriptionCreateFailure((subscription, error) => {
    const removed = String(error).includes("have been removed");
    console.log(removed ? `removed ${subscription.id}` : `bad ${subscription.id}: ${error}`);
  });
  const values = { user, broadcaster: user, moderator: user, rewardId: "92af127c-7326-4483-a52b-b0da0be61c01" };
  const methods = [];
  for (let type = Object.getPrototypeOf(listener); type; type = Object.getPrototypeOf(type)) {
    methods.push(...Object.getOwnPropertyNames(type).filter((name) => /^on[A-Z]/.test(name) && typeof listener[name] === "function"));
  }
  let count = 0;
  for (const name of new Set(methods)) {
    const parameters = listener[name].toString().match(/^\w+\(([^)]*)\)/)?.[1].split(",").map((text) => text.trim());
    if (!parameters?.includes("handler")) continue;
    const first = parameters[0];
    if (!withApp && (first === "handler" || first === "filter")) continue;
    const handler = (event) => {
      try {
        read(event, 0);
        console.log(`event ${name}`);
      } catch (error) {
        console.log(`bad ${name}: ${error}`);
      }
    };
    const given = parameters.slice(0, -1).map((parameter) => values[parameter] ?? { organizationId: "9911" });
    listener[name](...given, handler);
    count++;
  }
  console.log(`listening ${count}`);
}
