#!/usr/bin/env bash
# Fetches Apache Kafka's own Java tools from Maven Central into a directory, or
# others of its artifacts with all that they need.
#   tests/conformance/kafka_jars.sh DIR [ARTIFACT[:CLASSIFIER]...]
# The jars are then in DIR/jars; java -cp 'DIR/jars/*' MAIN-CLASS runs one.
set -eu
version=4.3.1
dir=$1
shift
[ $# != 0 ] || set -- kafka_2.13 kafka-tools
[ ! -e "$dir/jars/.done-$version" ] || exit 0
rm -rf "$dir/jars"
mkdir -p "$dir"
dependencies=
for name in "$@"; do
    classifier=
    case $name in
    *:*) classifier="<classifier>${name#*:}</classifier>" ;;
    esac
    dependencies="$dependencies
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>${name%:*}</artifactId>
      <version>$version</version>$classifier
    </dependency>"
done
cat >"$dir/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>flotilla.tests</groupId>
  <artifactId>kafka-jars</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>$dependencies
  </dependencies>
</project>
POM
mvn -q -B -Dstyle.color=never -f "$dir/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$dir/jars" -DincludeScope=runtime >&2
touch "$dir/jars/.done-$version"
