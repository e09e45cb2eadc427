import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import java.util.jar.JarFile;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageSizeAccumulator;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.Readable;

/**
 * Reads the lines of codec_samples on stdin with Kafka's own classes (jars as
 * arguments) and writes each message again: the bytes must be the same. Ends
 * with "N passed, N failed".
 */
public class SchemaBytes {
    static final Map<String, String> CLASSES = new HashMap<>();

    static void findClasses(String jar) throws Exception {
        try (JarFile f = new JarFile(jar)) {
            f.stream().map(e -> e.getName()).filter(n ->
                n.matches("org/apache/kafka/(common/message"
                    + "|coordinator/\\w+/generated)/\\w+\\.class"))
                .forEach(n -> {
                    String name = n.replace('/', '.').replace(".class", "");
                    String plain = name.substring(name.lastIndexOf('.') + 1)
                        .replaceAll("Data$", "").toLowerCase();
                    CLASSES.putIfAbsent(plain, name);
                });
        }
    }

    static String problem(String name, short version, byte[] bytes) {
        String plain = name.replace("_", "");
        String cls = CLASSES.get(plain);
        if (cls == null && plain.endsWith("data")) {
            cls = CLASSES.get(plain.substring(0, plain.length() - 4));
        }
        if (cls == null) {
            return "no such class";
        }
        try {
            ByteBuffer in = ByteBuffer.wrap(bytes);
            Message m = (Message) Class.forName(cls)
                .getConstructor(Readable.class, short.class)
                .newInstance(new ByteBufferAccessor(in), version);
            if (in.hasRemaining()) {
                return in.remaining() + " bytes left over";
            }
            ObjectSerializationCache cache = new ObjectSerializationCache();
            MessageSizeAccumulator size = new MessageSizeAccumulator();
            m.addSize(size, cache, version);
            ByteBuffer out = ByteBuffer.allocate(size.totalSize());
            m.write(new ByteBufferAccessor(out), cache, version);
            return java.util.Arrays.equals(bytes, out.array())
                ? null : "other bytes when written again: "
                    + HexFormat.of().formatHex(out.array());
        } catch (Throwable e) {
            Throwable why = e.getCause() != null ? e.getCause() : e;
            return why.toString();
        }
    }

    public static void main(String[] args) throws Exception {
        for (String jar : args) {
            findClasses(jar);
        }
        int passed = 0;
        int failed = 0;
        BufferedReader in =
            new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] w = line.split(" ", -1);
            String problem = problem(w[0], Short.parseShort(w[1]),
                HexFormat.of().parseHex(w[2]));
            if (problem == null) {
                passed++;
            } else {
                failed++;
                System.out.println("FAIL " + w[0] + " v" + w[1] + ": "
                    + problem + "\n     " + w[2]);
            }
        }
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed == 0 ? 0 : 1);
    }
}
