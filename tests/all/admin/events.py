"""Events that nobody waits for, as boto3 sends them, and what becomes of them."""

import datetime
import json
import sys
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

# One attempt: an error is looked at, not tried again.
config = Config(retries={"total_max_attempts": 1}, read_timeout=30)
aws = boto3.client("lambda", endpoint_url=sys.argv[1], config=config)
sqs = boto3.client("sqs", endpoint_url=sys.argv[1], config=config)
errors = aws.exceptions
ARN = "arn:aws:lambda:edge-1:123456789012:function"


def fails(kind, status, call, **arguments):
    try:
        call(**arguments)
    except kind as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status, error.response
        return error.response
    raise AssertionError(f"{kind} was expected")


def url(name):
    return sqs.get_queue_url(QueueName=name)["QueueUrl"]


def take(name):
    """The next message of a queue, which is deleted."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        got = sqs.receive_message(
            QueueUrl=url(name), WaitTimeSeconds=5, AttributeNames=["All"], MessageAttributeNames=["All"]
        ).get("Messages")
        if got:
            sqs.delete_message(QueueUrl=url(name), ReceiptHandle=got[0]["ReceiptHandle"])
            return got[0]
    raise AssertionError(f"nothing comes to {name}")


def send_event(name, event, **more):
    answer = aws.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(event), **more)
    assert answer["StatusCode"] == 202, answer
    assert answer["Payload"].read() == b"", "nobody waits for an answer"
    assert "FunctionError" not in answer and "LogResult" not in answer, answer
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert len(request_id) == 36, answer
    return request_id


def record(queue):
    """The record of a destination, without its time."""
    found = json.loads(take(queue)["Body"])
    when = datetime.datetime.strptime(found.pop("timestamp"), "%Y-%m-%dT%H:%M:%S.%fZ")
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    assert abs((now - when).total_seconds()) < 60, when
    return found


# What succeeds goes to its destination, with Lambda's record and nothing else.
event = {"do": "ok", "value": {"größe": [1, None, "x"]}}
request_id = send_event("worker", event)
assert record("good") == {
    "version": "1.0",
    "requestContext": {
        "requestId": request_id,
        "functionArn": f"{ARN}:worker:$LATEST",
        "condition": "Success",
        "approximateInvokeCount": 1,
    },
    "requestPayload": event,
    "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
    "responsePayload": event["value"],
}
# By its ARN and a qualifier, too, and without a payload.
request_id = send_event(f"{ARN}:worker", event, Qualifier="$LATEST")
assert record("good")["requestContext"]["requestId"] == request_id
answer = aws.invoke(FunctionName="worker", InvocationType="Event")
assert answer["StatusCode"] == 202, answer
assert record("good")["requestPayload"] == {}

# What fails is tried as often as it may be, and goes to the other one.
event = {"do": "fail"}
request_id = send_event("worker", event)
found = record("bad")
failure = found.pop("responsePayload")
assert (failure["errorType"], failure["errorMessage"]) == ("Failed", "as asked"), failure
assert found == {
    "version": "1.0",
    "requestContext": {
        "requestId": request_id,
        "functionArn": f"{ARN}:worker:$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 2,
    },
    "requestPayload": event,
    "responseContext": {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": "Unhandled",
    },
}

# DryRun runs nothing.
answer = aws.invoke(FunctionName="worker", InvocationType="DryRun", Payload=b"{}")
assert answer["StatusCode"] == 204 and answer["Payload"].read() == b"", answer

# What is not accepted has the class and the members of AWS's model.
for kind in ["Event", "DryRun"]:
    nobody = {"FunctionName": "nobody", "InvocationType": kind, "Payload": b"{}"}
    response = fails(errors.ResourceNotFoundException, 404, aws.invoke, **nobody)
    assert response["Error"]["Code"] == "ResourceNotFoundException", response
    assert response["Message"] == f"Function not found: {ARN}:nobody:$LATEST", response
    assert response["Type"] == "User", response
event = {"FunctionName": "worker", "InvocationType": "Event"}
response = fails(errors.InvalidRequestContentException, 400, aws.invoke, Payload=b"{", **event)
assert "Could not parse" in response["message"], response
# The limit of an event is 256 KiB, to the byte.
largest = b'"' + b"x" * ((256 << 10) - 2) + b'"'
assert aws.invoke(Payload=largest, **event)["StatusCode"] == 202
assert record("good")["requestContext"]["condition"] == "Success"
# AWS's own name for it, which its model does not have.
response = fails(ClientError, 413, aws.invoke, Payload=largest + b" ", **event)
assert response["Error"]["Code"] == "RequestEntityTooLargeException", response
assert "262145 byte payload is too large for the Event" in response["Error"]["Message"], response
# One runs, two wait, the next is one too many.
narrow = {"FunctionName": "narrow", "InvocationType": "Event", "Payload": json.dumps({"do": "sleep", "ms": 900})}
accepted = 0
while accepted < 10:
    try:
        aws.invoke(**narrow)
        accepted += 1
    except errors.TooManyRequestsException as error:
        response = error.response
        break
assert 2 <= accepted < 10, accepted
assert response["ResponseMetadata"]["HTTPStatusCode"] == 429, response
assert response["Reason"] == "FunctionInvocationRateLimitExceeded", response
assert response["Error"] == {"Code": "TooManyRequestsException", "Message": "Rate Exceeded."}, response
assert response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "1", response
assert response["retryAfterSeconds"] == "1", response

# A queue feeds a function, which answers for each message of its batch.
entries = [
    {"Id": str(n), "MessageBody": body, "MessageAttributes": {"n": {"DataType": "Number", "StringValue": str(n)}}}
    for n, body in enumerate(["good", "fail", "größe"])
]
sent = sqs.send_message_batch(QueueUrl=url("jobs"), Entries=entries)["Successful"]
failed = next(one["MessageId"] for one in sent if one["Id"] == "1")
letter = take("jobs-dead")
assert (letter["MessageId"], letter["Body"]) == (failed, "fail"), letter
assert letter["MessageAttributes"] == entries[1]["MessageAttributes"], letter
assert letter["Attributes"]["DeadLetterQueueSourceArn"] == "arn:aws:sqs:edge-1:123456789012:jobs"
# The others were done at once, and nothing else lies there.
deadline = time.monotonic() + 30
while True:
    left = sqs.get_queue_attributes(QueueUrl=url("jobs"), AttributeNames=["All"])["Attributes"]
    counts = [int(value) for name, value in left.items() if name.startswith("ApproximateNumber")]
    if sum(counts) == 0:
        break
    assert time.monotonic() < deadline, left
    time.sleep(0.05)
assert "Messages" not in sqs.receive_message(QueueUrl=url("jobs-dead"))

print("ok")
