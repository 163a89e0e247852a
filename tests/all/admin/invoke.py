"""What people do with boto3, against a host: `invoke.py URL`."""

import base64
import json
import sys
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

URL = sys.argv[1]
ARN = "arn:aws:lambda:edge-1:123456789012:function:probe"


def connect(**credentials):
    # One attempt: an error is looked at, not tried again.
    config = Config(retries={"total_max_attempts": 1}, read_timeout=30)
    return boto3.client("lambda", endpoint_url=URL, config=config, **credentials)


client = connect()


def invoke(event, name="probe", **more):
    return client.invoke(FunctionName=name, Payload=json.dumps(event), **more)


def expect(what, condition):
    if not condition:
        sys.exit(f"not as it should be: {what!r}")


# RequestResponse.
answer = invoke({"do": "echo", "value": {"a": [1, "é"]}})
expect(answer, answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "$LATEST")
expect(answer, "FunctionError" not in answer and "LogResult" not in answer)
expect(answer, len(answer["ResponseMetadata"]["RequestId"]) == 36)
expect(answer, json.load(answer["Payload"]) == {"a": [1, "é"]})
expect("no payload", json.load(client.invoke(FunctionName="probe")["Payload"]) == {})

# DryRun.
answer = invoke({}, InvocationType="DryRun")
expect(answer, answer["StatusCode"] == 204 and answer["Payload"].read() == b"")

# The log, and the client context.
answer = invoke({"do": "say", "lines": ["hello from the guest"]}, LogType="Tail")
log = base64.b64decode(answer["LogResult"]).decode()
expect(log, "START RequestId: " in log and "hello from the guest\n" in log and "REPORT RequestId: " in log)
context = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
saw = json.load(invoke({"do": "context"}, ClientContext=context)["Payload"])
expect(saw, json.loads(saw["clientContext"]) == {"custom": {"k": "v"}})

# Names.
for name in ["probe:$LATEST", ARN, f"{ARN}:$LATEST", "123456789012:function:probe", "123456789012:function:probe:$LATEST"]:
    saw = json.load(invoke({"do": "context"}, name=name)["Payload"])
    expect((name, saw), saw["function"] == "probe")
saw = json.load(invoke({"do": "context"}, Qualifier="$LATEST")["Payload"])
expect(saw, saw["invokedAs"] == f"{ARN}:$LATEST")

# Failures of the function are answers.
for event, kind in [
    ({"do": "fail", "name": "MyError", "message": "why"}, "MyError"),
    ({"do": "sleep", "ms": 20000}, "Sandbox.Timedout"),
    ({"do": "exit", "code": 1}, "Runtime.ExitError"),
    ({"do": "raw", "text": "no json"}, "Runtime.MarshalError"),
]:
    answer = invoke(event)
    expect(answer, answer["StatusCode"] == 200 and answer["FunctionError"] == "Unhandled")
    body = json.load(answer["Payload"])
    expect(body, body["errorType"] == kind and body["errorMessage"])

# Errors have their classes.
def refused(kind, call, status):
    try:
        call()
    except kind as error:
        expect(error.response, error.response["ResponseMetadata"]["HTTPStatusCode"] == status)
        return error.response
    sys.exit(f"not refused: {kind}")


errors = client.exceptions
response = refused(errors.ResourceNotFoundException, lambda: invoke({}, name="nobody"), 404)
expect(response, response["Message"] == "Function not found: arn:aws:lambda:edge-1:123456789012:function:nobody:$LATEST")
refused(errors.ResourceNotFoundException, lambda: invoke({}, name="probe:live"), 404)
refused(errors.ResourceNotFoundException, lambda: invoke({}, Qualifier="7"), 404)
refused(errors.InvalidParameterValueException, lambda: invoke({}, name="probe:live", Qualifier="7"), 400)
refused(errors.InvalidRequestContentException, lambda: client.invoke(FunctionName="probe", Payload=b"{"), 400)

def sleep():
    # One of the quick ones may be there first.
    while True:
        try:
            return invoke({"do": "sleep", "ms": 3000}, name="one")
        except errors.TooManyRequestsException:
            time.sleep(0.01)


slow = threading.Thread(target=sleep)
slow.start()
deadline = time.monotonic() + 30
while True:
    # The other one may not run yet.
    try:
        invoke(1, name="one")
    except errors.TooManyRequestsException as error:
        expect(error.response, error.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded")
        break
    expect("it is throttled", time.monotonic() < deadline)
    time.sleep(0.01)
slow.join()

# What is not served yet is an error that names it, not a puzzle.
response = refused(ClientError, client.list_functions, 501)
expect(response, response["Error"]["Code"] == "NotImplementedException" and response["Error"]["Message"])

# Keys that are not the host's.
stranger = connect(aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="x" * 40)
response = refused(ClientError, lambda: stranger.invoke(FunctionName="probe"), 403)
expect(response, response["Error"]["Code"] == "UnrecognizedClientException")

print("ok")
