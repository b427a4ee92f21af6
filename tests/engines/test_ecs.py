"""
Ensures that the files in ecs/ make what they say, in a mocked AWS, and that the containers of their task definitions
really run as they are described there.

The mock (moto) is given the templates as they are but for `as_the_mock_takes_it`. Its CloudFormation drops a service's
network and balancer and what a security group lets out, and has no scaling and no TCP listeners. What has an API of its
own is made once more by that, from the template's properties: botocore refuses unknown fields, wrong types and gaps.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import socket
import ssl
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import attrs
import pytest

from sidecar.errors import EXIT_CONFIG
from tests.scenarios.clients import client_context, write_identity
from tests.support import proxyheaders
from tests.support.certs import CLIENT, Issued, authority, other_authority, reveals
from tests.support.ecs import (
    ACCOUNT,
    CA_SECRET,
    DIGEST,
    ECS,
    REGION,
    TLS_SECRET,
    Stack,
    Values,
    camel,
    container,
    document,
    parameters,
    pascal,
    template,
)
from tests.support.engines import docker, run, script, tool
from tests.support.program import Neighbour, Port, eventually

TOOLS = ".venv-deploy"

TCP_LISTENER = "Port: 443\n      Protocol: TCP\n      DefaultActions"

UP_SECONDS = 120.0
CONNECT_SECONDS = 10.0


# -- in a mocked AWS --------------------------------------------------------------------------------------------


@attrs.frozen
class Cloud:
    """
    A mocked AWS with a VPC.

    Attributes:
        subnets: Two of the VPC.
        certificate: ARN of one in ACM.
    """

    environment: Mapping[str, str]
    vpc: str = ""
    subnets: Sequence[str] = ()
    certificate: str = ""

    def aws(self, *words: str | Path) -> Any:
        """Run the user's own command; return what it prints, read as JSON."""
        done = run(tool("aws", TOOLS), "--output", "json", *words, environ=dict(self.environment))
        return json.loads(done.stdout) if done.stdout.strip() else None

    def make(self, service: str, action: str, request: Values) -> Any:
        """Run one of the commands that take a whole request as JSON."""
        return self.aws(service, action, "--cli-input-json", json.dumps(request))

    def deploy(self, file: Path, stack: str, given: Mapping[str, str]) -> dict[str, str]:
        """Make a stack as README.md says; return what its resources are called."""
        pairs = [f"{name}={value}" for name, value in given.items()]
        words: tuple[str | Path, ...] = (
            "--template-file",
            file,
            "--stack-name",
            stack,
            "--capabilities",
            "CAPABILITY_IAM",
        )
        command = (tool("aws", TOOLS), "cloudformation", "deploy", *words, "--parameter-overrides", *pairs)
        done = run(*command, environ=dict(self.environment))
        assert "Successfully created" in done.stdout
        listed = self.aws("cloudformation", "list-stack-resources", "--stack-name", stack)
        made = (each for each in listed["StackResourceSummaries"] if each.get("PhysicalResourceId"))
        known = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in made}
        known |= {f"{role}.Arn": f"arn:aws:iam::{ACCOUNT}:role/{known[role]}" for role in ("ExecutionRole", "TaskRole")}
        return {
            **known,
            "Service.Name": stack,
            "LogGroup.Arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/ecs/{stack}",
        }


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    directory = tmp_path_factory.mktemp("cloud")
    issued = authority().issue("app.example")
    issued.write(directory)
    with Port() as port:
        server = ("env", f"MOTO_ACCOUNT_ID={ACCOUNT}", tool("moto_server", TOOLS), "-H", port.host, "-p")
        bare = Cloud(
            {
                "AWS_ACCESS_KEY_ID": "mock",
                "AWS_CONFIG_FILE": str(directory / "none"),
                "AWS_DEFAULT_REGION": REGION,
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_ENDPOINT_URL": f"http://{port}",
                "AWS_SECRET_ACCESS_KEY": "mock",
                "AWS_SHARED_CREDENTIALS_FILE": str(directory / "none"),
                "NO_PROXY": port.host,
            }
        )
        with Neighbour(directory, port, *server, str(port.number)):
            subnets = bare.aws("ec2", "describe-subnets")["Subnets"][:2]
            files = [f"fileb://{directory / name}" for name in ("tls.crt", "tls.key")]
            imported = bare.aws("acm", "import-certificate", "--certificate", files[0], "--private-key", files[1])
            yield attrs.evolve(
                bare,
                vpc=subnets[0]["VpcId"],
                subnets=[each["SubnetId"] for each in subnets],
                certificate=imported["CertificateArn"],
            )


def given_values(cloud: Cloud, name: str) -> dict[str, str]:
    """Values for a template's parameters, of things that are there."""
    repository = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    return parameters(
        name,
        VpcId=cloud.vpc,
        BalancerSubnets=",".join(cloud.subnets),
        TaskSubnets=",".join(cloud.subnets),
        CertificateArn=cloud.certificate,
        SidecarImage=f"{repository}/tls-sidecar@{DIGEST}",
        AppImage=f"{repository}/hello-app@{DIGEST}",
    )


def as_the_mock_takes_it(text: str) -> str:
    """Return a template for moto, whose stacks have no other listeners than those of an application balancer."""
    return text.replace(TCP_LISTENER, TCP_LISTENER.replace("TCP", "HTTP"))


@attrs.frozen
class Made:
    """A stack that was made: the template with its values, and what its resources are called."""

    stack: Stack
    known: Mapping[str, str]

    def api(self, resource: str) -> Values:
        """Return a resource's properties as the API of ECS and scaling takes them."""
        request: Values = camel(self.stack.properties(resource))
        return request


def make(cloud: Cloud, name: str, directory: Path) -> Made:
    stack = name.partition(".")[0]
    file = directory / name
    file.write_text(as_the_mock_takes_it((ECS / name).read_text()))
    given = given_values(cloud, name)
    known = cloud.deploy(file, stack, given)
    return Made(Stack(template(name), given, known, stack), known)


@pytest.fixture(scope="module")
def alb(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(cloud, "alb.yaml", tmp_path_factory.mktemp("alb"))


@pytest.fixture(scope="module")
def nlb(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(cloud, "nlb.yaml", tmp_path_factory.mktemp("nlb"))


@pytest.fixture(params=["alb", "nlb"])
def made(request: pytest.FixtureRequest) -> Made:
    stack: Made = request.getfixturevalue(request.param)
    return stack


def within(part: Any, whole: Any) -> bool:
    """Whether everything that *part* says is said by *whole*, which may say more."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(within, part, whole))
    return bool(part == whole)


@pytest.fixture(scope="module")
def registered(cloud: Cloud) -> Any:
    """What the API says of the file."""
    file = f"file://{ECS / 'task-definition.json'}"
    return cloud.aws("ecs", "register-task-definition", "--cli-input-json", file)["taskDefinition"]


class TestFiles:
    def test_task_definition_is_registered_as_it_stands(self, registered: Any) -> None:
        """Every field has the name and type that the API has, and is kept."""
        assert within(document("task-definition.json"), registered)

    def test_service_is_created_with_it(self, cloud: Cloud, registered: Any, alb: Made, tmp_path: Path) -> None:
        """With what an operator puts in place of what says REPLACE."""
        text = (ECS / "service.json").read_text()
        text = re.sub(r"arn:aws:elasticloadbalancing:[^\"]*REPLACE", alb.known["TargetGroup"], text)
        text = text.replace("sg-REPLACE-TASK", alb.known["TaskSecurityGroup"])
        for subnet, letter in zip(cloud.subnets, "AB", strict=True):
            text = text.replace(f"subnet-REPLACE-PRIVATE-{letter}", subnet)
        assert "REPLACE" not in text
        file = tmp_path / "service.json"
        file.write_text(text)
        cloud.aws("ecs", "create-cluster", "--cluster-name", "tls-app")
        found = cloud.aws("ecs", "create-service", "--cli-input-json", f"file://{file}")["service"]
        wanted = json.loads(text)
        for key in ("loadBalancers", "networkConfiguration", "desiredCount", "launchType"):
            assert within(wanted[key], found[key]), key
        assert found["taskDefinition"] == registered["taskDefinitionArn"]


class TestStacks:
    def test_task_definition_is_the_templates(self, cloud: Cloud, made: Made) -> None:
        """Functions and conditions come out as the files' own tests take them to."""
        arn = made.known["TaskDefinition"]
        found = cloud.aws("ecs", "describe-task-definition", "--task-definition", arn)["taskDefinition"]
        wanted = made.stack.task()
        assert found["family"] == wanted["family"]
        assert within(wanted["containerDefinitions"], found["containerDefinitions"])

    def test_execution_role_is_the_templates(self, cloud: Cloud, made: Made) -> None:
        """It has the one policy, and the task's own role has none."""
        (wanted,) = made.stack.properties("ExecutionRole")["Policies"]
        role = ("--role-name", made.known["ExecutionRole"], "--policy-name", wanted["PolicyName"])
        found = cloud.aws("iam", "get-role-policy", *role)["PolicyDocument"]
        found = ast.literal_eval(found)  # moto keeps AWS::NoValue, and what it prints then is no JSON
        found["Statement"].remove(None)
        assert found == wanted["PolicyDocument"]
        mine = cloud.aws("iam", "list-role-policies", "--role-name", made.known["TaskRole"])
        assert mine["PolicyNames"] == []

    def test_security_groups_let_in_who_is_needed(self, cloud: Cloud, made: Made) -> None:
        """Clients come to the balancer, and the balancer to the tasks."""
        groups = [made.known[name] for name in ("BalancerSecurityGroup", "TaskSecurityGroup")]
        found = cloud.aws("ec2", "describe-security-groups", "--group-ids", *groups)["SecurityGroups"]
        balancer, tasks = (each["IpPermissions"] for group in groups for each in found if each["GroupId"] == group)
        wanted = made.stack.properties("BalancerSecurityGroup")["SecurityGroupIngress"]
        assert [rule["FromPort"] for rule in balancer] == [rule["FromPort"] for rule in wanted]
        assert all(rule["IpRanges"][0]["CidrIp"] == made.stack.given["ClientCidr"] for rule in balancer)
        (rule,) = tasks
        assert (rule["FromPort"], rule["ToPort"], rule["IpRanges"]) == (443, 443, [])
        assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == groups[:1]

    def test_service_is_taken_with_network_and_balancer(self, cloud: Cloud, made: Made) -> None:
        """Its properties are a request that the API knows."""
        wanted = made.api("Service") | {"serviceName": f"by-api-{made.stack.name}"}
        found = cloud.make("ecs", "create-service", wanted)["service"]
        assert within({key: wanted[key] for key in ("loadBalancers", "networkConfiguration")}, found)

    def test_scaling_is_taken(self, cloud: Cloud, made: Made) -> None:
        """One target, the service of the stack, and each policy of the template by target tracking."""
        target = made.stack.properties("ScalableTarget")
        assert target["ResourceId"] == f"service/{made.stack.name}/{made.stack.name}"
        cloud.make("application-autoscaling", "register-scalable-target", target)
        place = {key: target[key] for key in ("ServiceNamespace", "ScalableDimension", "ResourceId")}
        for name in made.stack.template["Resources"]:
            if name.startswith("ScalingBy"):
                policy = made.stack.properties(name)
                assert policy.pop("ScalingTargetId") == "ScalableTarget"
                assert policy["PolicyType"] == "TargetTrackingScaling"
                cloud.make("application-autoscaling", "put-scaling-policy", {**policy, **place})


class TestAlbStack:
    def test_listeners_are_https_and_a_redirect(self, cloud: Cloud, alb: Made) -> None:
        """With the certificate and the policy that were asked for."""
        balancer = alb.known["LoadBalancer"]
        found = cloud.aws("elbv2", "describe-listeners", "--load-balancer-arn", balancer)["Listeners"]
        https, http = sorted(found, key=lambda each: str(each["Protocol"]), reverse=True)
        assert within(alb.stack.properties("HttpsListener"), https)
        assert within(alb.stack.properties("RedirectListener"), http)

    def test_target_group_checks_the_app_through_tls(self, cloud: Cloud, alb: Made) -> None:
        """On the path that is the template's default; its attributes are ones that the API knows."""
        wanted = alb.stack.properties("TargetGroup")
        arn = ("--target-group-arn", alb.known["TargetGroup"])
        given = json.dumps(wanted.pop("TargetGroupAttributes"))
        cloud.aws("elbv2", "modify-target-group-attributes", *arn, "--attributes", given)
        (found,) = cloud.aws("elbv2", "describe-target-groups", "--target-group-arns", arn[1])["TargetGroups"]
        assert within(wanted, found)
        assert found["HealthCheckPath"] == "/service"


class TestNlbStack:
    def test_balancer_listener_and_target_group_are_taken(self, cloud: Cloud, nlb: Made) -> None:
        """As a network balancer with security groups, whose TCP listener leads to targets that get PROXY headers."""
        balancer = nlb.stack.properties("LoadBalancer")
        settings = balancer.pop("LoadBalancerAttributes")
        (made,) = cloud.make("elbv2", "create-load-balancer", {**balancer, "Name": "by-api"})["LoadBalancers"]
        arn = made["LoadBalancerArn"]
        assert (made["Type"], made["SecurityGroups"]) == ("network", [nlb.known["BalancerSecurityGroup"]])
        cloud.make("elbv2", "modify-load-balancer-attributes", {"LoadBalancerArn": arn, "Attributes": settings})

        group = nlb.stack.properties("TargetGroup")
        settings = group.pop("TargetGroupAttributes")
        (taken,) = cloud.make("elbv2", "create-target-group", {**group, "Name": "by-api"})["TargetGroups"]
        target = taken["TargetGroupArn"]
        assert within(group, taken)
        request = {"TargetGroupArn": target, "Attributes": settings}
        cloud.make("elbv2", "modify-target-group-attributes", request)
        found = cloud.aws("elbv2", "describe-target-group-attributes", "--target-group-arn", target)["Attributes"]
        assert all(each in found for each in settings)

        listener = nlb.stack.properties("Listener")
        settings = listener.pop("ListenerAttributes")
        action = [{"Type": "forward", "TargetGroupArn": target}]
        request = {**listener, "LoadBalancerArn": arn, "DefaultActions": action}
        (heard,) = cloud.make("elbv2", "create-listener", request)["Listeners"]
        assert (heard["Protocol"], heard["Port"]) == ("TCP", 443)
        request = {"ListenerArn": heard["ListenerArn"], "Attributes": settings}
        cloud.make("elbv2", "modify-listener-attributes", request)


class TestLint:
    def lint(self, *files: Path, statuses: Sequence[int] = (0,)) -> str:
        return run(tool("cfn-lint", TOOLS), "--regions", REGION, "--", *files, statuses=statuses).stdout

    def wrapped(self, directory: Path, task: Values) -> Path:
        resource = {"Type": "AWS::ECS::TaskDefinition", "Properties": pascal(task)}
        file = directory / "task-definition.template.json"
        file.write_text(json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Task": resource}}))
        return file

    def test_finds_nothing(self, tmp_path: Path) -> None:
        """Neither in the templates nor in the task definition, as one of a template."""
        wrapped = self.wrapped(tmp_path, document("task-definition.json"))
        assert self.lint(ECS / "alb.yaml", ECS / "nlb.yaml", wrapped) == ""

    def test_finds_what_fargate_would_refuse(self, tmp_path: Path) -> None:
        """It knows more than the mock: a pair of CPU and memory that there is not."""
        task = document("task-definition.json") | {"memory": "8192"}
        assert "8192" in self.lint(self.wrapped(tmp_path, task), statuses=range(1, 256))


# -- run for real -----------------------------------------------------------------------------------------------


class Task:
    """
    The containers of a task definition, started by ecs-run, for ``with``; gone at its end.

    Two things are done for what ecs-run does not know. ``systemControls`` are taken out, and set in the task's network
    namespace. ``restartPolicy`` is taken out where a container is to stay ended: Docker cannot ignore an exit code.
    """

    def __init__(
        self,
        task: Values,
        directory: Path,
        *,
        secrets: Mapping[str, str],
        images: Mapping[str, str],
        may_listen: bool = True,
        can_work: bool = True,
    ) -> None:
        """
        Args:
            secrets: What is behind each ``valueFrom``.
            images: What runs in place of an image.
            may_listen: Whether the ``systemControls`` come into effect.
            can_work: Whether the task is to get up; if not, a container that ends is not restarted.
        """
        self._command = [script("ecs-run"), "up"]
        self.family = f"test-{uuid.uuid4().hex[:12]}"
        self.port = Port()
        self._can_work = can_work
        mine = copy.deepcopy(task) | {"family": self.family}
        sidecar = container(mine, "sidecar")
        controls = sidecar.pop("systemControls")
        self._controls = controls if may_listen else []
        if not can_work:
            del sidecar["restartPolicy"]
        file = directory / f"{self.family}.json"
        file.write_text(json.dumps(mine))
        self._command += [str(file), "-p", f"{self.port.number}:443"]
        self._command += [word for pair in secrets.items() for word in ("--secret", "=".join(pair))]
        self._command += [word for pair in images.items() for word in ("--image", "=".join(pair))]
        self._output = directory / f"{self.family}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=output)
        try:
            self._set_controls()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _set_controls(self) -> None:
        """In time: the sidecar is started once the app is healthy, and that takes some seconds."""
        net = f"ecs-{self.family}-net"
        running = ("inspect", "--format", "{{.State.Running}}", net)
        eventually(lambda: docker(*running, statuses=(0, 1)) == "true", f"{net} runs")
        for control in self._controls:
            path = f"/proc/sys/{control['namespace'].replace('.', '/')}"
            inside = ("run", "--rm", "--privileged", "--network", f"container:{net}", "debian:trixie-slim")
            docker(*inside, "sh", "-c", f"echo {control['value']} > {path}")

    def wait(self) -> str:
        """Wait until it is up, or cannot get up; return what ecs-run says."""
        assert self._process is not None
        status = self._process.wait(UP_SECONDS)
        said = self._output.read_text()
        assert (status == 0) is self._can_work, f"{said}\n{self.log('sidecar')}\n{self.log('app')}"
        return said

    def down(self) -> list[tuple[str, int]]:
        """Stop it as Fargate does; return the containers in the order in which they ended, with their exit status."""
        said = run(script("ecs-run"), "down", self.family).stdout
        return [(name, int(code)) for name, code in re.findall(r"^(\w+): stopped .* exit code (\d+)$", said, re.M)]

    def close(self) -> None:
        """Take away what is left of it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        containers = docker("ps", "--all", "--quiet", "--filter", f"name=^ecs-{self.family}-").split()
        if containers:
            docker("rm", "--force", *containers)
        self.port.close()

    def log(self, name: str) -> str:
        """What a container has written."""
        done = run("docker", "logs", f"ecs-{self.family}-{name}", statuses=(0, 1))
        return done.stdout + done.stderr

    def inspect(self, name: str) -> Any:
        """What the engine says of a container."""
        return json.loads(docker("inspect", f"ecs-{self.family}-{name}"))[0]

    def get(self, path: str, *, header: bytes = b"", identity: Path | None = None) -> str:
        """Ask for *path* on a connection that begins with *header*; return the whole response."""
        with self._tls(header, identity) as tls:
            tls.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: tls.recv(65_536), b"")).decode()

    def certificate(self) -> str:
        """Return the certificate that is served."""
        with self._tls(b"", None) as tls:
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")

    def connect(self) -> socket.socket:
        return socket.create_connection((self.port.host, self.port.number), CONNECT_SECONDS)

    def _tls(self, header: bytes, identity: Path | None) -> ssl.SSLSocket:
        raw = self.connect()
        try:
            raw.sendall(header)
            return client_context(identity=identity).wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise

    def access_log(self, path: str) -> Values:
        """Wait for the line of a request for *path*; return it."""
        lines: list[Values] = []

        def is_there() -> bool:
            written = run("docker", "logs", f"ecs-{self.family}-sidecar").stdout.splitlines()
            lines[:] = [line for line in map(json.loads, written) if line["path"] == path]
            return bool(lines)

        eventually(is_there, f"{path} is in the access log")
        return lines[-1]


@pytest.fixture(scope="module")
def server() -> Issued:
    return authority().issue("localhost")


@pytest.fixture(scope="module")
def tasks(
    tmp_path_factory: pytest.TempPathFactory, server: Issued, image: str, app_image: str
) -> Iterator[dict[str, Task]]:
    """The tasks of all the tests below, started together: each takes seconds until its app is healthy."""
    definition = document("task-definition.json")
    gateway = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    # From there come connections of this machine; it takes the balancer's place.
    given = parameters("nlb.yaml", BalancerCidrs=f"{gateway}/32")
    secrets = {
        f"{TLS_SECRET}:certificate::": server.cert_pem.decode(),
        f"{TLS_SECRET}:privateKey::": server.key_pem.decode(),
        CA_SECRET: authority().cert_pem.decode(),
    }
    without_key = secrets | {f"{TLS_SECRET}:privateKey::": ""}
    images = {container(definition, "sidecar")["image"]: image, container(definition, "app")["image"]: app_image}
    directory = tmp_path_factory.mktemp("tasks")
    made = {
        "alb": Task(definition, directory, secrets=secrets, images=images),
        "nlb": Task(Stack(template("nlb.yaml"), given).task(), directory, secrets=secrets, images=images),
        "no port": Task(definition, directory, secrets=secrets, images=images, may_listen=False, can_work=False),
        "no key": Task(definition, directory, secrets=without_key, images=images, can_work=False),
    }
    with ExitStack() as stack:
        for task in made.values():
            stack.enter_context(task)
        yield made


@pytest.fixture
def behind_alb(tasks: Mapping[str, Task]) -> Task:
    """The file's own task, up."""
    tasks["alb"].wait()
    return tasks["alb"]


@pytest.fixture
def behind_nlb(tasks: Mapping[str, Task]) -> Task:
    """The task of the NLB's template, up."""
    tasks["nlb"].wait()
    return tasks["nlb"]


class TestTask:
    def test_app_answers_through_443(self, behind_alb: Task, tmp_path: Path) -> None:
        """The user's own curl, with the CA, gets the app's line."""
        ca = tmp_path / "ca.crt"
        ca.write_bytes(authority().cert_pem)
        url = f"https://localhost:{behind_alb.port.number}/service"
        done = run("curl", "--silent", "--show-error", "--noproxy", "*", "--cacert", ca, url)
        assert done.stdout == f"Hello from {behind_alb.family}\n"

    def test_certificate_is_the_secrets(self, behind_alb: Task, server: Issued) -> None:
        """Clients see what the secret holds, not one that was made at start."""
        assert behind_alb.certificate().encode() == server.cert_pem

    def test_sidecar_starts_when_the_app_is_healthy(self, behind_alb: Task) -> None:
        """And both have become healthy by their own checks."""
        up = f"task {behind_alb.family}: RUNNING, HEALTHY"
        assert behind_alb.wait().splitlines() == ["app: started", "sidecar: started", up]
        first = behind_alb.inspect("app")["State"]["Health"]["Log"][0]["End"]
        begun = behind_alb.inspect("sidecar")["State"]["StartedAt"]
        assert datetime.fromisoformat(first) < datetime.fromisoformat(begun)

    def test_sidecar_is_closed_in_as_described(self, behind_alb: Task) -> None:
        """User, files, capabilities and memory are those of the file, and it listens on 443 all the same."""
        found = behind_alb.inspect("sidecar")
        assert found["Config"]["User"] == "65532:65532"
        assert found["HostConfig"]["ReadonlyRootfs"] is True
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert found["HostConfig"]["Memory"] == 256 * 1024 * 1024

    def test_log_has_no_secret(self, behind_alb: Task, server: Issued) -> None:
        """Not even a part of the key."""
        behind_alb.get("/logged")
        behind_alb.access_log("/logged")
        log = behind_alb.log("sidecar")
        key = "".join(server.key_pem.decode().splitlines()[1:-1])
        assert not reveals(log, key)
        assert "PRIVATE KEY" not in log


class TestNlbTask:
    HEADER = proxyheaders.v2(proxyheaders.IPV4)
    """As the balancer sends it, for the client 192.0.2.1."""

    def test_valid_certificate_is_served_and_named(self, behind_nlb: Task, tmp_path: Path) -> None:
        """The access log says who it was and from where, though the balancer made the connection."""
        alice = write_identity(authority().issue("alice", purposes=CLIENT), tmp_path / "alice.pem")
        answer = behind_nlb.get("/alice", header=self.HEADER, identity=alice)
        assert answer.startswith("HTTP/1.1 200 ")
        line = behind_nlb.access_log("/alice")
        assert (line["client"], line["client_subject"]) == ("192.0.2.1", "CN=alice")

    def test_invalid_certificate_is_refused(self, behind_nlb: Task, tmp_path: Path) -> None:
        """One from another CA gets 403."""
        mallory = write_identity(other_authority().issue("alice", purposes=CLIENT), tmp_path / "mallory.pem")
        answer = behind_nlb.get("/service", header=self.HEADER, identity=mallory)
        assert answer.startswith("HTTP/1.1 403 ")

    def test_no_certificate_is_refused(self, behind_nlb: Task) -> None:
        """No path is open without one, not even for health checks: these only connect."""
        assert behind_nlb.get("/service", header=self.HEADER).startswith("HTTP/1.1 400 ")

    def test_health_check_is_let_in_and_not_logged(self, behind_nlb: Task) -> None:
        """It connects and closes; whether the balancer puts a header ahead of that or not."""
        behind_nlb.get("/before", header=self.HEADER)
        behind_nlb.access_log("/before")
        before = behind_nlb.log("sidecar").splitlines()
        for sent in (b"", proxyheaders.v2(b"", protocol=0, command=0)):
            with behind_nlb.connect() as raw:
                raw.sendall(sent)
        behind_nlb.get("/behind", header=self.HEADER)
        behind_nlb.access_log("/behind")
        (new,) = Counter(behind_nlb.log("sidecar").splitlines()) - Counter(before)
        assert json.loads(new)["path"] == "/behind"

    def test_no_header_is_refused(self, behind_nlb: Task) -> None:
        """Who does not come through the balancer gets no handshake, and the log says why."""
        with pytest.raises(OSError):  # noqa: PT011 - TLS may notice first, or the socket
            behind_nlb.get("/service")
        eventually(lambda: "proxy_header_missing" in behind_nlb.log("sidecar"), "the log says why")


class TestStop:
    def test_sidecar_ends_first_and_both_end_well(self, behind_alb: Task, behind_nlb: Task) -> None:
        """The app is there until the sidecar has drained. This is the end of what the tests above share."""
        with ThreadPoolExecutor() as pool:
            ended = list(pool.map(Task.down, (behind_alb, behind_nlb)))
        assert ended == [[("sidecar", 0), ("app", 0)]] * 2


class TestRefusals:
    """What a task ends with that cannot work: the exit code that is not restarted, and one line."""

    def last_words(self, task: Task) -> str:
        assert f"exited, exit code {EXIT_CONFIG}" in task.wait()
        (line,) = task.log("sidecar").splitlines()
        return line

    def test_port_that_is_not_allowed_names_the_ways_out(self, tasks: Mapping[str, Task]) -> None:
        """Without the systemControls of the file an ordinary user may not listen on 443."""
        line = self.last_words(tasks["no port"])
        assert "cannot listen on 0.0.0.0:443: Permission denied" in line
        for way in ("net.ipv4.ip_unprivileged_port_start=443", "8443", "CAP_NET_BIND_SERVICE"):
            assert way in line

    def test_secret_without_a_key_is_named(self, tasks: Mapping[str, Task], server: Issued) -> None:
        """The line says what is missing, and shows nothing of what is there."""
        line = self.last_words(tasks["no key"])
        assert "SIDECAR_TLS_CERT (environment): no private key" in line
        assert not reveals(line, "".join(server.cert_pem.decode().splitlines()[1:-1]))
