// The queues and asynchronous invocation as AWS's SDK for JavaScript uses them.
//
//     sdk.mjs URL NODE_MODULES

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createRequire } from "node:module";

const [endpoint, folder] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const SQS = require("@aws-sdk/client-sqs");
const Lambda = require("@aws-sdk/client-lambda");

// One attempt: an error is looked at, not tried again.
const config = { endpoint, region: "edge-1", maxAttempts: 1 };
const sqs = new SQS.SQS(config);
const aws = new Lambda.Lambda(config);

const md5 = (bytes) => createHash("md5").update(bytes).digest("hex");

/** The MD5 of message attributes, by the rule in AWS's documentation. */
function digest(attributes) {
  const hash = createHash("md5");
  const put = (bytes) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  };
  for (const name of Object.keys(attributes).sort()) {
    const { DataType, StringValue, BinaryValue } = attributes[name];
    put(Buffer.from(name));
    put(Buffer.from(DataType));
    hash.update(Buffer.from([BinaryValue ? 2 : 1]));
    put(Buffer.from(BinaryValue ?? StringValue));
  }
  return hash.digest("hex");
}

async function fails(type, status, call) {
  try {
    await call();
  } catch (error) {
    assert(error instanceof type, error);
    assert.equal(error.$metadata.httpStatusCode, status);
    assert(error.$metadata.requestId, "errors have a request id");
    return error;
  }
  assert.fail(`${type.name} was expected`);
}

const url = async (QueueName) => (await sqs.getQueueUrl({ QueueName })).QueueUrl;
const queue = await url("orders");
assert(queue.startsWith(`${endpoint}/`), queue);

// Sent and received. The SDK itself checks the MD5 of bodies, and fails if one is wrong.
const given = {
  kind: { DataType: "String", StringValue: "new" },
  amount: { DataType: "Number.eur", StringValue: "12.5" },
  blob: { DataType: "Binary", BinaryValue: Uint8Array.of(0, 255) },
};
const body = 'größe "\u{1f986}"\n';
const sent = await sqs.sendMessage({ QueueUrl: queue, MessageBody: body, MessageAttributes: given });
assert.equal(sent.MD5OfMessageBody, md5(body));
assert.equal(sent.MD5OfMessageAttributes, digest(given));
const received = await sqs.receiveMessage({
  QueueUrl: queue,
  MaxNumberOfMessages: 10,
  MessageAttributeNames: ["All"],
  MessageSystemAttributeNames: ["All"],
});
assert.equal(received.Messages.length, 1);
const [message] = received.Messages;
assert.equal(message.MessageId, sent.MessageId);
assert.equal(message.Body, body);
assert.equal(message.MD5OfBody, md5(body));
assert.equal(message.MD5OfMessageAttributes, digest(given));
assert.deepEqual({ ...message.MessageAttributes.blob.BinaryValue }, { 0: 0, 1: 255 });
assert.equal(message.MessageAttributes.amount.DataType, "Number.eur");
assert.equal(message.Attributes.ApproximateReceiveCount, "1");
await sqs.changeMessageVisibility({
  QueueUrl: queue,
  ReceiptHandle: message.ReceiptHandle,
  VisibilityTimeout: 0,
});
const again = (await sqs.receiveMessage({ QueueUrl: queue })).Messages[0];
assert.equal(again.MessageId, sent.MessageId);
await sqs.deleteMessage({ QueueUrl: queue, ReceiptHandle: again.ReceiptHandle });
assert.equal((await sqs.receiveMessage({ QueueUrl: queue })).Messages, undefined);

// Batches: what is wrong with one entry is said of it alone.
const Entries = [...Array(9).keys()].map((n) => ({ Id: `${n}`, MessageBody: `m${n}` }));
const batch = await sqs.sendMessageBatch({
  QueueUrl: queue,
  Entries: [...Entries, { Id: "bad", MessageBody: "\x01" }],
});
assert.equal(batch.Successful.length, 9);
assert.deepEqual(batch.Failed.map((it) => [it.Id, it.Code, it.SenderFault]), [
  ["bad", "InvalidMessageContents", true],
]);
const nine = (await sqs.receiveMessage({ QueueUrl: queue, MaxNumberOfMessages: 10 })).Messages;
assert.deepEqual(nine.map((it) => it.Body), Entries.map((it) => it.MessageBody));
const gone = await sqs.deleteMessageBatch({
  QueueUrl: queue,
  Entries: [
    ...nine.map(({ ReceiptHandle }, n) => ({ Id: `${n}`, ReceiptHandle })),
    { Id: "x", ReceiptHandle: "nonsense" },
  ],
});
assert.equal(gone.Successful.length, 9);
assert.deepEqual(gone.Failed.map((it) => [it.Id, it.Code]), [["x", "ReceiptHandleIsInvalid"]]);

// Who waits hears of a message at once.
let began = performance.now();
const nothing = await sqs.receiveMessage({ QueueUrl: queue, WaitTimeSeconds: 1 });
assert.equal(nothing.Messages, undefined);
assert(performance.now() - began >= 990);
began = performance.now();
const waits = sqs.receiveMessage({ QueueUrl: queue, WaitTimeSeconds: 20 });
await new Promise((resolve) => setTimeout(resolve, 300));
await sqs.sendMessage({ QueueUrl: queue, MessageBody: "now" });
const heard = (await waits).Messages[0];
assert.equal(heard.Body, "now");
assert(performance.now() - began < 15_000);
await sqs.deleteMessage({ QueueUrl: queue, ReceiptHandle: heard.ReceiptHandle });

// Errors have their classes.
await fails(SQS.QueueDoesNotExist, 400, () => url("none"));
await fails(SQS.ReceiptHandleIsInvalid, 400, () =>
  sqs.deleteMessage({ QueueUrl: queue, ReceiptHandle: "nonsense" }),
);
const small = await url("small");
await sqs.sendMessage({ QueueUrl: small, MessageBody: "x" });
await fails(SQS.RequestThrottled, 429, () => sqs.sendMessage({ QueueUrl: small, MessageBody: "x" }));

// Events.
const Payload = JSON.stringify({ do: "ok", value: { "größe": [1, null] } });
const event = { FunctionName: "worker", InvocationType: "Event" };
const accepted = await aws.invoke({ ...event, Payload });
assert.equal(accepted.StatusCode, 202);
assert.equal(accepted.Payload?.length ?? 0, 0);
assert.equal(accepted.FunctionError, undefined);
const good = await url("good");
const done = (await sqs.receiveMessage({ QueueUrl: good, WaitTimeSeconds: 20 })).Messages[0];
const record = JSON.parse(done.Body);
assert.equal(record.requestContext.requestId, accepted.$metadata.requestId);
assert.equal(record.requestContext.condition, "Success");
assert.deepEqual(record.requestPayload, JSON.parse(Payload));
assert.deepEqual(record.responsePayload, { "größe": [1, null] });
const dry = await aws.invoke({ ...event, InvocationType: "DryRun", Payload });
assert.equal(dry.StatusCode, 204);
const answer = await aws.invoke({ FunctionName: "worker", Payload });
assert.deepEqual(JSON.parse(answer.Payload.transformToString()), { "größe": [1, null] });
const unknown = await fails(Lambda.ResourceNotFoundException, 404, () =>
  aws.invoke({ ...event, FunctionName: "nobody", Payload }),
);
assert.equal(unknown.Type, "User");
await fails(Lambda.InvalidRequestContentException, 400, () => aws.invoke({ ...event, Payload: "{" }));
const large = JSON.stringify("x".repeat(1 << 18));
// AWS's own name for it, which its model does not have.
const tooLarge = await fails(Lambda.LambdaServiceException, 413, () =>
  aws.invoke({ ...event, Payload: large }),
);
assert.equal(tooLarge.name, "RequestEntityTooLargeException");
let throttled;
for (let n = 0; n < 10 && !throttled; n++) {
  const sleep = JSON.stringify({ do: "sleep", ms: 900 });
  await aws.invoke({ ...event, FunctionName: "narrow", Payload: sleep }).catch((error) => {
    throttled = error;
  });
}
assert(throttled instanceof Lambda.TooManyRequestsException, throttled);
assert.equal(throttled.Reason, "FunctionInvocationRateLimitExceeded");
assert.equal(throttled.retryAfterSeconds, "1");

console.log("ok");
