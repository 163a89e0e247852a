"""The SQS API as boto3 sees it."""

import hashlib
import os
import struct
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

sqs = boto3.client(
    "sqs", endpoint_url=sys.argv[1], config=Config(retries={"max_attempts": 1})
)


def fails(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        return error.response
    raise AssertionError(f"{code} was expected")


def digest(attributes):
    """The MD5 of message attributes, by the rule in AWS's documentation."""
    parts = b""
    for name in sorted(attributes):
        value = attributes[name]
        is_binary = value["DataType"].startswith("Binary")
        content = value["BinaryValue"] if is_binary else value["StringValue"].encode()
        for part in [name.encode(), value["DataType"].encode()]:
            parts += struct.pack(">I", len(part)) + part
        parts += bytes([2 if is_binary else 1]) + struct.pack(">I", len(content)) + content
    return hashlib.md5(parts).hexdigest()


def attribute(url, name):
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    return found["Attributes"][name]


url = sqs.get_queue_url(QueueName="orders")["QueueUrl"]
dead = sqs.get_queue_url(QueueName="orders-dead")["QueueUrl"]
assert url.startswith(sys.argv[1] + "/123456789012/"), url
listed = sqs.list_queues(QueueNamePrefix="orders")["QueueUrls"]
assert listed == [url, dead], listed
fails("AWS.SimpleQueueService.NonExistentQueue", sqs.get_queue_url, QueueName="none")

# Sent and received, with every kind of attribute.
given = {
    "kind": {"DataType": "String", "StringValue": "new"},
    "amount": {"DataType": "Number.eur", "StringValue": "12.5"},
    "blob": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
}
sent = sqs.send_message(QueueUrl=url, MessageBody="größe", MessageAttributes=given)
assert sent["MD5OfMessageBody"] == hashlib.md5("größe".encode()).hexdigest()
assert sent["MD5OfMessageAttributes"] == digest(given)
assert sent["ResponseMetadata"]["RequestId"]
got = sqs.receive_message(
    QueueUrl=url,
    MessageAttributeNames=["All"],
    MessageSystemAttributeNames=["All"],
    MaxNumberOfMessages=10,
)["Messages"]
(message,) = got
assert message["MessageId"] == sent["MessageId"]
assert message["Body"] == "größe"
assert message["MD5OfBody"] == sent["MD5OfMessageBody"]
assert message["MessageAttributes"] == given
assert message["MD5OfMessageAttributes"] == digest(given)
assert message["MessageAttributes"]["blob"]["BinaryValue"] == b"\x00\xff"
assert message["MessageAttributes"]["amount"]["DataType"] == "Number.eur"
assert message["Attributes"]["ApproximateReceiveCount"] == "1"
assert abs(int(message["Attributes"]["SentTimestamp"]) / 1000 - time.time()) < 60
assert attribute(url, "ApproximateNumberOfMessagesNotVisible") == "1"
assert "Messages" not in sqs.receive_message(QueueUrl=url)

# Shown again at once, and received too often: a dead letter.
handle = message["ReceiptHandle"]
sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
fails(
    "AWS.SimpleQueueService.MessageNotInflight",
    sqs.change_message_visibility,
    QueueUrl=url,
    ReceiptHandle=handle,
    VisibilityTimeout=10,
)
again = sqs.receive_message(
    QueueUrl=url, VisibilityTimeout=0, MessageAttributeNames=["ki.*"]
)["Messages"][0]
some = {"kind": given["kind"]}
assert again["MessageAttributes"] == some
assert again["MD5OfMessageAttributes"] == digest(some)
assert again["MessageId"] == sent["MessageId"]
assert "Messages" not in sqs.receive_message(QueueUrl=url)
letter = sqs.receive_message(QueueUrl=dead, AttributeNames=["All"])["Messages"][0]
assert letter["MessageId"] == sent["MessageId"]
source = letter["Attributes"]["DeadLetterQueueSourceArn"]
assert source == "arn:aws:sqs:edge-1:123456789012:orders", source
fails(
    "ReceiptHandleIsInvalid",
    sqs.delete_message,
    QueueUrl=url,
    ReceiptHandle=letter["ReceiptHandle"],
)
fails("ReceiptHandleIsInvalid", sqs.delete_message, QueueUrl=url, ReceiptHandle="x")
sqs.delete_message(QueueUrl=dead, ReceiptHandle=letter["ReceiptHandle"])
sqs.delete_message(QueueUrl=dead, ReceiptHandle=letter["ReceiptHandle"])
assert attribute(dead, "ApproximateNumberOfMessages") == "0"

# Batches: what is wrong with one entry is said of it alone.
entries = [{"Id": str(n), "MessageBody": f"m{n}"} for n in range(9)]
entries.append({"Id": "bad", "MessageBody": "\x01"})
done = sqs.send_message_batch(QueueUrl=url, Entries=entries)
assert len(done["Successful"]) == 9
(failed,) = done["Failed"]
assert (failed["Id"], failed["Code"], failed["SenderFault"]) == (
    "bad",
    "InvalidMessageContents",
    True,
), failed
batch = [{"Id": "a", "MessageBody": "x"}, {"Id": "a", "MessageBody": "y"}]
fails(
    "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
    sqs.send_message_batch,
    QueueUrl=url,
    Entries=batch,
)
fails(
    "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
    sqs.send_message_batch,
    QueueUrl=url,
    Entries=[{"Id": str(n), "MessageBody": "x"} for n in range(11)],
)
got = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
assert [m["Body"] for m in got] == [f"m{n}" for n in range(9)]
longer = [
    {"Id": m["Body"], "ReceiptHandle": m["ReceiptHandle"], "VisibilityTimeout": 60}
    for m in got
]
assert len(sqs.change_message_visibility_batch(QueueUrl=url, Entries=longer)["Successful"]) == 9
gone = [{"Id": m["Body"], "ReceiptHandle": m["ReceiptHandle"]} for m in got]
gone.append({"Id": "x", "ReceiptHandle": "nonsense"})
deleted = sqs.delete_message_batch(QueueUrl=url, Entries=gone)
assert len(deleted["Successful"]) == 9
assert deleted["Failed"][0]["Code"] == "ReceiptHandleIsInvalid"

# Who waits hears of a message at once, and of one that is delayed in time.
began = time.time()
assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)
assert time.time() - began >= 1
sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=1)
late = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)["Messages"][0]
assert late["Body"] == "later"
sqs.delete_message(QueueUrl=url, ReceiptHandle=late["ReceiptHandle"])

# FIFO.
steps = sqs.get_queue_url(QueueName="steps.fifo")["QueueUrl"]
fails("InvalidParameterValue", sqs.send_message, QueueUrl=steps, MessageBody="x")
first = sqs.send_message(
    QueueUrl=steps, MessageBody="1", MessageGroupId="g", MessageDeduplicationId="1"
)
same = sqs.send_message(
    QueueUrl=steps, MessageBody="1", MessageGroupId="g", MessageDeduplicationId="1"
)
assert same["SequenceNumber"] == first["SequenceNumber"]
sqs.send_message(
    QueueUrl=steps, MessageBody="2", MessageGroupId="g", MessageDeduplicationId="2"
)
one = sqs.receive_message(QueueUrl=steps, MessageSystemAttributeNames=["All"])["Messages"][0]
assert one["Attributes"]["MessageGroupId"] == "g"
assert one["Attributes"]["SequenceNumber"] == first["SequenceNumber"]
assert "Messages" not in sqs.receive_message(QueueUrl=steps)
sqs.delete_message(QueueUrl=steps, ReceiptHandle=one["ReceiptHandle"])
assert sqs.receive_message(QueueUrl=steps)["Messages"][0]["Body"] == "2"

# A queue that is full pushes back.
small = sqs.get_queue_url(QueueName="small")["QueueUrl"]
for n in range(2):
    sqs.send_message(QueueUrl=small, MessageBody="x")
full = fails("RequestThrottled", sqs.send_message, QueueUrl=small, MessageBody="x")
assert full["ResponseMetadata"]["HTTPStatusCode"] == 429
sqs.purge_queue(QueueUrl=small)
sqs.send_message(QueueUrl=small, MessageBody="x")

# Queues of the API's own; those of the manifest are the manifest's.
mine = sqs.create_queue(
    QueueName="mine",
    Attributes={
        "VisibilityTimeout": "5",
        "RedrivePolicy": '{"deadLetterTargetArn":"arn:aws:sqs:edge-1:123456789012:orders-dead","maxReceiveCount":"4"}',
    },
)["QueueUrl"]
assert sqs.create_queue(QueueName="mine")["QueueUrl"] == mine
fails(
    "QueueAlreadyExists",
    sqs.create_queue,
    QueueName="mine",
    Attributes={"VisibilityTimeout": "6"},
)
sqs.set_queue_attributes(QueueUrl=mine, Attributes={"DelaySeconds": "7"})
assert attribute(mine, "VisibilityTimeout") == "5"
assert attribute(mine, "DelaySeconds") == "7"
assert '"maxReceiveCount":4' in attribute(mine, "RedrivePolicy")
for wrong, code in [
    ({"DelaySeconds": "x"}, "InvalidAttributeValue"),
    ({"DelaySeconds": "901"}, "InvalidParameterValue"),
    ({"Colour": "red"}, "InvalidAttributeName"),
]:
    fails(code, sqs.set_queue_attributes, QueueUrl=mine, Attributes=wrong)
sqs.delete_queue(QueueUrl=mine)
fails("AWS.SimpleQueueService.NonExistentQueue", sqs.delete_queue, QueueUrl=mine)
fails("AWS.SimpleQueueService.UnsupportedOperation", sqs.delete_queue, QueueUrl=url)
assert "Tags" not in sqs.list_queue_tags(QueueUrl=url)
fails(
    "AWS.SimpleQueueService.UnsupportedOperation",
    sqs.tag_queue,
    QueueUrl=url,
    Tags={"a": "b"},
)

# For after the restart: one in flight, one that waits.
for body in ["held", "waits"]:
    sqs.send_message(QueueUrl=url, MessageBody=body)
held = sqs.receive_message(QueueUrl=url, VisibilityTimeout=3600)["Messages"][0]
assert held["Body"] == "held"
with open(os.path.join(os.environ["HOME"], "receipt"), "w") as file:
    file.write(held["ReceiptHandle"])

print("ok")
