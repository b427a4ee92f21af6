"""The files in ecs/: what they say of one thing in several places is the same, and it is closed where it can be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.errors import EXIT_CONFIG
from sidecar.healthcheck import DEADLINE_SECONDS
from sidecar.settings import Settings
from tests.support.certs import authority
from tests.support.ecs import (
    ACCOUNT,
    CA_SECRET,
    DIGEST,
    ECS,
    KMS_KEY,
    REGION,
    TLS_SECRET,
    Stack,
    Values,
    container,
    document,
    parameters,
    template,
)
from tests.support.program import ROOT, sidecar_command

TEMPLATES = ("alb.yaml", "nlb.yaml")

ROLES = {
    "ExecutionRole.Arn": f"arn:aws:iam::{ACCOUNT}:role/tls-app-execution",
    "TaskRole.Arn": f"arn:aws:iam::{ACCOUNT}:role/tls-app-task",
    "LogGroup": "/ecs/tls-app",
}

ONLY_NLB_ENVIRONMENT = [
    {"name": "SIDECAR_PROXY_PROTOCOL", "value": "required"},
    {"name": "SIDECAR_CLIENT_CERT", "value": "required"},
]
ONLY_NLB_SECRETS = [{"name": "SIDECAR_CLIENT_CA", "valueFrom": CA_SECRET}]

WAY_IN = {"LoadBalancer", "HttpsListener", "RedirectListener", "Listener", "TargetGroup", "BalancerSecurityGroup"}
"""What is there for the balancer; everything else is the same for both."""

README = (ECS / "README.md").read_text(encoding="utf-8")


def stack(name: str, **given: str) -> Stack:
    return Stack(template(name), parameters(name, **given), ROLES)


def attributes(properties: Values, name: str) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in properties[name]}


def statements(of: Stack) -> Iterator[Values]:
    """Everything that the execution role may do."""
    for policy in of.properties("ExecutionRole")["Policies"]:
        yield from policy["PolicyDocument"]["Statement"]


def all_tasks() -> list[Any]:
    tasks = {"task-definition.json": document("task-definition.json")}
    tasks |= {name: stack(name).task() for name in TEMPLATES}
    tasks["alb.yaml without a certificate"] = stack("alb.yaml", TlsSecretArn="").task()
    return [pytest.param(task, id=name) for name, task in tasks.items()]


class TestTaskDefinition:
    def test_alb_template_says_the_same(self) -> None:
        """The template with a certificate makes the very task definition of the JSON file."""
        assert stack("alb.yaml").task() == document("task-definition.json")

    def test_alb_template_without_a_certificate_has_no_secrets(self) -> None:
        """Behind an ALB the certificate made at start is enough; nothing else changes."""
        expected = document("task-definition.json")
        del container(expected, "sidecar")["secrets"]
        assert stack("alb.yaml", TlsSecretArn="").task() == expected

    def test_nlb_template_adds_client_certificates_and_proxy_headers(self) -> None:
        """Behind an NLB the sidecar has to know the client by itself; nothing else changes."""
        expected = document("task-definition.json")
        container(expected, "sidecar")["environment"] += ONLY_NLB_ENVIRONMENT
        container(expected, "sidecar")["secrets"] += ONLY_NLB_SECRETS
        assert stack("nlb.yaml").task() == expected

    @pytest.mark.parametrize("task", all_tasks())
    def test_settings_are_accepted_by_the_program(self, task: Values) -> None:
        """`sidecar check` finds nothing wrong with the variables, given real values for the secrets."""
        issued = authority().issue("localhost")
        values = {
            "SIDECAR_TLS_CERT": issued.cert_pem.decode(),
            "SIDECAR_TLS_KEY": issued.key_pem.decode(),
            "SIDECAR_CLIENT_CA": authority().cert_pem.decode(),
        }
        sidecar = container(task, "sidecar")
        variables = {each["name"]: each["value"] for each in sidecar["environment"]}
        variables |= {each["name"]: values[each["name"]] for each in sidecar.get("secrets", [])}
        settings = {name.removeprefix("SIDECAR_").lower(): value for name, value in variables.items()}
        done = sidecar_command("check", **settings)
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("task", all_tasks())
    def test_every_container_is_closed(self, task: Values) -> None:
        """No container can write to its image's files, has a capability, is privileged or has a key in plain sight."""
        for each in task["containerDefinitions"]:
            assert each["readonlyRootFilesystem"] is True
            assert each["linuxParameters"] == {"capabilities": {"drop": ["ALL"]}}
            assert "privileged" not in each
            assert "BEGIN" not in json.dumps(each)

    @pytest.mark.parametrize("task", all_tasks())
    def test_sidecar_has_its_own_user_and_port(self, task: Values) -> None:
        """An ordinary user may listen on the port that is the program's default."""
        sidecar = container(task, "sidecar")
        port = Settings().listen.port
        assert sidecar["user"] == "65532:65532"
        assert sidecar["portMappings"] == [{"containerPort": port, "protocol": "tcp"}]
        assert sidecar["systemControls"] == [{"namespace": "net.ipv4.ip_unprivileged_port_start", "value": str(port)}]

    @pytest.mark.parametrize("task", all_tasks())
    def test_stop_timeout_leaves_time_to_drain(self, task: Values) -> None:
        """The sidecar is not killed while it finishes what is in flight."""
        assert container(task, "sidecar")["stopTimeout"] > Settings().timeouts.drain

    @pytest.mark.parametrize("task", all_tasks())
    def test_settings_that_cannot_work_are_not_tried_again(self, task: Values) -> None:
        """Only the exit code for them is exempt from restarts."""
        policy = container(task, "sidecar")["restartPolicy"]
        assert policy["enabled"] is True
        assert policy["ignoredExitCodes"] == [EXIT_CONFIG]

    @pytest.mark.parametrize("task", all_tasks())
    def test_sidecar_starts_behind_a_healthy_app(self, task: Values) -> None:
        """On a stop the order is the reverse: the sidecar drains while the app still answers."""
        assert container(task, "sidecar")["dependsOn"] == [{"containerName": "app", "condition": "HEALTHY"}]
        assert "dependsOn" not in container(task, "app")

    @pytest.mark.parametrize("task", all_tasks())
    def test_health_check_needs_no_shell_and_has_time_to_say_why(self, task: Values) -> None:
        """It is our own sub-command, and gives up by itself before it is ended."""
        check = container(task, "sidecar")["healthCheck"]
        assert check["command"] == ["CMD", "sidecar", "healthcheck"]
        assert check["timeout"] > DEADLINE_SECONDS

    @pytest.mark.parametrize("task", all_tasks())
    def test_containers_fit_into_the_task(self, task: Values) -> None:
        """One of Fargate's pairs of CPU and memory, and no more memory promised than there is."""
        assert (task["cpu"], task["memory"]) == ("256", "512")
        assert sum(each["memory"] for each in task["containerDefinitions"]) <= int(task["memory"])

    def test_certificate_and_key_are_of_one_secret(self) -> None:
        """They change together, so that a task never starts with halves of two pairs."""
        pair = [each["valueFrom"] for each in container(document("task-definition.json"), "sidecar")["secrets"]]
        assert pair == [f"{TLS_SECRET}:certificate::", f"{TLS_SECRET}:privateKey::"]

    def test_what_has_to_be_replaced_says_so(self) -> None:
        """No digest, subnet, group or secret of the files could be taken for a real one."""
        task = (ECS / "task-definition.json").read_text()
        service = (ECS / "service.json").read_text()
        found = re.findall(r'"(?:image|valueFrom)": "([^"]*)"', task)
        found += re.findall(r'"((?:subnet-|sg-|arn:)[^"]*)"', service)
        assert len(found) == 4 + 4
        assert all("REPLACE" in value for value in found)


class TestService:
    def test_service_file_says_the_same_as_the_templates(self) -> None:
        """But for the number of tasks, which is the scaling's in a stack."""
        expected = document("service.json")
        del expected["desiredCount"]
        for name in TEMPLATES:
            found = stack(name).properties("Service")
            assert found["DeploymentConfiguration"] == {
                "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
                "MaximumPercent": expected["deploymentConfiguration"]["maximumPercent"],
                "MinimumHealthyPercent": expected["deploymentConfiguration"]["minimumHealthyPercent"],
            }
            assert {key[0].lower() + key[1:] for key in found} == expected.keys()
            for key in ("launchType", "platformVersion", "healthCheckGracePeriodSeconds", "enableExecuteCommand"):
                assert found[key[0].upper() + key[1:]] == expected[key]

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_traffic_goes_to_the_sidecar(self, name: str) -> None:
        """Service, target group and container mean the same port; nobody gets to the app past the sidecar."""
        expected = {"TargetGroupArn": "TargetGroup", "ContainerName": "sidecar", "ContainerPort": 443}
        assert stack(name).properties("Service")["LoadBalancers"] == [expected]
        assert stack(name).properties("TargetGroup")["Port"] == 443
        assert "portMappings" not in container(stack(name).task(), "app")

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_scaling_keeps_two_tasks(self, name: str) -> None:
        """The stack scales by itself, and an update of it does not take tasks away."""
        assert "DesiredCount" not in stack(name).properties("Service")
        assert stack(name).properties("ScalableTarget")["MinCapacity"] == document("service.json")["desiredCount"] == 2
        assert stack(name).properties("ScalingByCpu")["PolicyType"] == "TargetTrackingScaling"


class TestAlb:
    def test_both_sides_are_https(self) -> None:
        """TLS to the balancer, TLS from it to the task; plain HTTP is only ever redirected."""
        alb = stack("alb.yaml")
        listener, group = alb.properties("HttpsListener"), alb.properties("TargetGroup")
        assert (listener["Protocol"], listener["Port"]) == ("HTTPS", 443)
        assert (group["Protocol"], group["HealthCheckProtocol"], group["TargetType"]) == ("HTTPS", "HTTPS", "ip")
        (action,) = alb.properties("RedirectListener")["DefaultActions"]
        assert action["Type"] == "redirect"
        assert action["RedirectConfig"]["Protocol"] == "HTTPS"

    def test_clients_get_a_current_policy(self) -> None:
        """TLS 1.2 with forward secrecy and 1.3, as the sidecar's own default; it knows the policy by its name."""
        policy = stack("alb.yaml").properties("HttpsListener")["SslPolicy"]
        assert policy == "ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09"
        assert sidecar_command("check", tls_policy=policy).returncode == 0

    def test_balancer_hangs_up_first(self) -> None:
        """A connection that the sidecar closes while the balancer sends on it would be a 502."""
        idle = attributes(stack("alb.yaml").properties("LoadBalancer"), "LoadBalancerAttributes")
        assert int(idle["idle_timeout.timeout_seconds"]) < Settings().timeouts.idle

    def test_deregistration_takes_no_less_than_a_drain(self) -> None:
        """A request that the sidecar would wait for is not cut by the balancer."""
        group = attributes(stack("alb.yaml").properties("TargetGroup"), "TargetGroupAttributes")
        assert int(group["deregistration_delay.timeout_seconds"]) >= Settings().timeouts.drain


class TestNlb:
    def test_tls_ends_at_the_sidecar(self) -> None:
        """The balancer passes TCP on and has no certificate."""
        nlb = stack("nlb.yaml")
        listener, group = nlb.properties("Listener"), nlb.properties("TargetGroup")
        assert (listener["Protocol"], group["Protocol"], group["TargetType"]) == ("TCP", "TCP", "ip")
        assert "Certificates" not in listener
        assert nlb.properties("LoadBalancer")["Type"] == "network"

    def test_proxy_header_is_sent_and_demanded(self) -> None:
        """Both sides speak the PROXY protocol, and the balancer comes with the address that it is believed by."""
        nlb = stack("nlb.yaml")
        group = attributes(nlb.properties("TargetGroup"), "TargetGroupAttributes")
        assert group["proxy_protocol_v2.enabled"] == "true"
        assert group["preserve_client_ip.enabled"] == "false"
        sidecar = container(nlb.task(), "sidecar")
        assert {"name": "SIDECAR_TRUSTED_PROXIES", "value": nlb.given["BalancerCidrs"]} in sidecar["environment"]

    def test_health_check_only_connects(self) -> None:
        """It needs neither a path that is open without a certificate nor a port that takes PROXY headers."""
        group = stack("nlb.yaml").properties("TargetGroup")
        assert (group["HealthCheckProtocol"], group["HealthCheckPort"]) == ("TCP", "traffic-port")
        assert "HealthCheckPath" not in group

    def test_balancer_forgets_no_connection_that_is_in_use(self) -> None:
        """The sidecar gives up a silent connection before the balancer drops it without a word."""
        listener = attributes(stack("nlb.yaml").properties("Listener"), "ListenerAttributes")
        timeouts = Settings().timeouts
        assert int(listener["tcp.idle_timeout.seconds"]) > max(timeouts.idle, timeouts.stream)


class TestSecurityGroups:
    @pytest.mark.parametrize("name", TEMPLATES)
    def test_only_the_balancer_reaches_the_tasks(self, name: str) -> None:
        """On one port, in both directions."""
        of = stack(name)
        tasks, ingress = of.properties("TaskSecurityGroup"), of.properties("TaskIngress")
        assert "SecurityGroupIngress" not in tasks
        assert ingress["SourceSecurityGroupId"] == "BalancerSecurityGroup"
        (egress,) = of.properties("BalancerSecurityGroup")["SecurityGroupEgress"]
        assert egress["DestinationSecurityGroupId"] == "TaskSecurityGroup"
        assert {ingress["FromPort"], ingress["ToPort"], egress["FromPort"], egress["ToPort"]} == {443}

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_tasks_reach_https_alone(self, name: str) -> None:
        """And where, is the operator's to say."""
        (egress,) = stack(name, EgressCidr="10.0.0.0/16").properties("TaskSecurityGroup")["SecurityGroupEgress"]
        assert (egress["IpProtocol"], egress["FromPort"], egress["ToPort"]) == ("tcp", 443, 443)
        assert egress["CidrIp"] == "10.0.0.0/16"

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_tasks_reach_the_endpoint_of_s3(self, name: str) -> None:
        """Its addresses are outside of the VPC, so a VPC's block does not name them."""
        assert template(name)["Resources"]["TaskEgressToS3"]["Condition"] == "HasS3PrefixList"
        egress = stack(name, S3PrefixListId="pl-6da54004").properties("TaskEgressToS3")
        assert egress["GroupId"] == "TaskSecurityGroup"
        assert (egress["IpProtocol"], egress["FromPort"], egress["ToPort"]) == ("tcp", 443, 443)
        assert egress["DestinationPrefixListId"] == "pl-6da54004"

    @pytest.mark.parametrize(("name", "ports"), [("alb.yaml", [443, 80]), ("nlb.yaml", [443])], ids=TEMPLATES)
    def test_only_the_named_clients_reach_the_balancer(self, name: str, ports: list[int]) -> None:
        """There is no default for who may come in."""
        assert "Default" not in template(name)["Parameters"]["ClientCidr"]
        rules = stack(name).properties("BalancerSecurityGroup")["SecurityGroupIngress"]
        assert [(rule["FromPort"], rule["ToPort"]) for rule in rules] == [(port, port) for port in ports]
        assert {rule["CidrIp"] for rule in rules} == {"192.0.2.0/24"}

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_nothing_has_a_public_address_of_its_own(self, name: str) -> None:
        """Tasks stand in private subnets, and a balancer is internal unless told otherwise."""
        network = stack(name).properties("Service")["NetworkConfiguration"]["AwsvpcConfiguration"]
        assert network["AssignPublicIp"] == "DISABLED"
        assert stack(name).properties("LoadBalancer")["Scheme"] == "internal"


class TestRoles:
    @pytest.mark.parametrize("name", TEMPLATES)
    def test_task_may_do_nothing(self, name: str) -> None:
        """What runs in the containers has a role of its own, and no right by it."""
        properties = stack(name).properties("TaskRole")
        assert properties.keys() == {"AssumeRolePolicyDocument"}

    @pytest.mark.parametrize(
        ("name", "secrets"),
        [("alb.yaml", TLS_SECRET), ("nlb.yaml", [TLS_SECRET, CA_SECRET])],
        ids=TEMPLATES,
    )
    def test_execution_role_reads_what_the_task_starts_with(self, name: str, secrets: Any) -> None:
        """These images, this log group, these secrets; only the token for the registry is of no resource."""
        allowed = [(each["Action"], each["Resource"]) for each in statements(stack(name))]
        repository = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository"
        assert allowed == [
            ("ecr:GetAuthorizationToken", "*"),
            (
                ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                [f"{repository}/tls-sidecar", f"{repository}/hello-app"],
            ),
            (["logs:CreateLogStream", "logs:PutLogEvents"], "LogGroup.Arn"),
            ("secretsmanager:GetSecretValue", secrets),
        ]

    def test_execution_role_without_a_secret_reads_none(self) -> None:
        """Nor does it decrypt any, whatever key is named."""
        allowed = [each["Action"] for each in statements(stack("alb.yaml", TlsSecretArn="", SecretsKmsKeyArn=KMS_KEY))]
        assert not {"secretsmanager:GetSecretValue", "kms:Decrypt"} & {str(action) for action in allowed}

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_kms_key_is_for_secrets_alone(self, name: str) -> None:
        """A key of one's own may be used through Secrets Manager, and for nothing else."""
        *_, last = statements(stack(name, SecretsKmsKeyArn=KMS_KEY))
        assert last == {
            "Effect": "Allow",
            "Action": "kms:Decrypt",
            "Resource": KMS_KEY,
            "Condition": {"StringEquals": {"kms:ViaService": f"secretsmanager.{REGION}.amazonaws.com"}},
        }

    def test_repository_in_a_folder_is_found(self) -> None:
        """The right to pull is for the repository that the image names, in its region and account."""
        image = f"222233334444.dkr.ecr.eu-central-1.amazonaws.com/team/web/app@{DIGEST}"
        resources = [each["Resource"] for each in statements(stack("alb.yaml", AppImage=image))]
        assert "arn:aws:ecr:eu-central-1:222233334444:repository/team/web/app" in resources[1]


class TestParameters:
    @pytest.mark.parametrize("name", TEMPLATES)
    @pytest.mark.parametrize(
        ("parameter", "value", "is_taken"),
        [
            ("SidecarImage", f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/tls-sidecar@{DIGEST}", True),
            ("SidecarImage", f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/tls-sidecar:0.1.0", False),
            ("SidecarImage", f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/tls-sidecar@sha256:REPLACE", False),
            ("AppImage", f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/team/app@{DIGEST}", True),
            ("AppImage", "app:latest", False),
            ("BalancerCidrs", "10.0.0.0/24,10.0.1.0/24", True),
            ("BalancerCidrs", "10.0.0.0/24, 10.0.1.0/24", False),
            ("BalancerCidrs", "", False),
            ("TlsSecretArn", TLS_SECRET, True),
            ("TlsSecretArn", f"{TLS_SECRET}:certificate::", False),
            ("TlsSecretArn", "-----BEGIN PRIVATE KEY-----", False),
            ("SecretsKmsKeyArn", "", True),
            ("SecretsKmsKeyArn", "alias/secrets", False),
            ("S3PrefixListId", "pl-6da54004", True),
            ("S3PrefixListId", "com.amazonaws.eu-west-1.s3", False),
            ("AppHealthCheck", "CMD,/bin/true", True),
            ("AppHealthCheck", "/bin/true", False),
        ],
    )
    def test_values_are_checked_before_anything_is_made(
        self, name: str, parameter: str, value: str, is_taken: bool
    ) -> None:
        """What cannot work is refused by the template, with a sentence that says what would."""
        declared = template(name)["Parameters"][parameter]
        assert bool(re.fullmatch(declared["AllowedPattern"], value)) is is_taken
        assert declared["ConstraintDescription"].startswith("must be ")

    def test_only_the_alb_does_without_a_secret(self) -> None:
        """Clients behind an NLB check the sidecar's certificate, so it must be given."""
        for name, has_default in (("alb.yaml", True), ("nlb.yaml", False)):
            declared = template(name)["Parameters"]["TlsSecretArn"]
            assert ("Default" in declared) is has_default
            assert bool(re.fullmatch(declared["AllowedPattern"], "")) is has_default

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_each_is_used_and_described(self, name: str) -> None:
        """A parameter that nothing refers to would be set in vain."""
        text = (ECS / name).read_text()
        for parameter, declared in template(name)["Parameters"].items():
            assert re.search(rf"!Ref {parameter}\b|\$\{{{parameter}[}}:]", text), parameter
            assert declared["Description"]


class TestTemplates:
    def test_what_both_have_is_the_same(self) -> None:
        """Everything but the way in, what the sidecar is told of it, and what scales by requests."""
        alb, nlb = template("alb.yaml")["Resources"], template("nlb.yaml")["Resources"]
        different = WAY_IN | {"TaskIngress", "TaskDefinition", "ExecutionRole", "Service"}
        assert alb.keys() - nlb.keys() - WAY_IN == {"ScalingByRequests"}
        assert nlb.keys() - alb.keys() - WAY_IN == set()
        for name in alb.keys() & nlb.keys() - different:
            assert alb[name] == nlb[name], name
        assert alb["Service"]["Properties"] == nlb["Service"]["Properties"]

    @pytest.mark.parametrize("name", TEMPLATES)
    def test_service_waits_for_its_listener(self, name: str) -> None:
        """ECS refuses a target group that no listener leads to."""
        resources = template(name)["Resources"]
        listener = resources[resources["Service"]["DependsOn"]]
        (action,) = listener["Properties"]["DefaultActions"]
        assert action == {"Type": "forward", "TargetGroupArn": {"Ref": "TargetGroup"}}


class TestReadme:
    @pytest.mark.parametrize("name", TEMPLATES)
    def test_command_gives_every_parameter_without_a_default(self, name: str) -> None:
        """The command that makes the stack works as it stands there, and names no parameter that is not there."""
        command = next(block for block in re.findall(r"(?s)```console\n(.*?)```", README) if f"ecs/{name}" in block)
        given = set(re.findall(r"\b([A-Z][A-Za-z]+)=", command.partition("--parameter-overrides")[2]))
        declared = template(name)["Parameters"]
        assert given <= declared.keys()
        assert {key for key, each in declared.items() if "Default" not in each} <= given

    def test_numbers_are_those_of_the_program(self) -> None:
        """The table of settings that have to fit together quotes the defaults and the files."""
        timeouts = Settings().timeouts
        for variable, seconds in (
            ("SIDECAR_DRAIN_TIMEOUT", timeouts.drain),
            ("SIDECAR_IDLE_TIMEOUT", timeouts.idle),
            ("SIDECAR_STREAM_TIMEOUT", timeouts.stream),
        ):
            assert f"`{variable}` {seconds:g} s" in README
        assert f"exit code {EXIT_CONFIG}" in README

    def test_matcher_that_grpc_replaces_is_that_of_the_template(self) -> None:
        """The reader finds what to replace."""
        [replaced] = re.findall(r"`Matcher: \{GrpcCode: \S+\}` instead of `(Matcher: \{[^`]+\})`", README)
        assert (ECS / "alb.yaml").read_text(encoding="utf-8").count(f" {replaced}\n") == 1

    def test_files_it_names_are_there(self) -> None:
        """Nobody is sent to a file that does not exist."""
        for path in set(re.findall(r"\becs/[\w-]+\.(?:json|yaml)", README)):
            assert (ROOT / path).is_file(), path
