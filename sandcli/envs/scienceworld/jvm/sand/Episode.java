package sand;

import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.atomic.AtomicLong;
import scala.Tuple3;
import scala.collection.mutable.ArrayBuffer;
import scienceworld.runtime.AgentInterface;
import scienceworld.runtime.pythonapi.PythonInterface;

/**
 * One of many ScienceWorld episodes of this JVM.
 *
 * The simulator has global variables: the counter of object ids, the random generator, and the active
 * simplifications. Each episode has its own values of them, which are swapped in when it steps after another episode.
 * Not thread-safe.
 */
public final class Episode {
    /** Separates the parts of an answer; no text of the simulator contains it. */
    private static final String SEPARATOR = "\u0001";
    private static final String UNKNOWN =
        "Unknown action.  Type 'help' for a list of actions, and 'objects' for a list of possible object referents. ";

    /** What the game answers itself, without a step of the simulator. */
    private static final Set<String> QUESTIONS = Set.of("help", "objects", "task");

    private static final Object IDS = module("util.UniqueIdentifier$");
    private static final Field COUNT = field(IDS.getClass(), "count");
    private static final Random RANDOM = ((scala.util.Random) module("scala.util.Random$")).self();
    private static final AtomicLong SEED = (AtomicLong) get(field(Random.class, "seed"), RANDOM);
    private static final Field GAUSSIAN = field(Random.class, "nextNextGaussian");
    private static final Field HAS_GAUSSIAN = field(Random.class, "haveNextNextGaussian");
    private static final ArrayBuffer<Object> SIMPLIFICATIONS = simplifications();

    private static Episode current;

    private final PythonInterface game;
    private long ids;
    private long seed;
    private double gaussian;
    private boolean hasGaussian;
    private List<Object> simplified = new ArrayList<>();

    private Episode(PythonInterface game) {
        this.game = game;
    }

    /** A new episode at the start of a task. */
    public static Episode load(String task, int variation, String simplifications) throws Exception {
        leave(); // first: the constructor already uses the random generator
        Episode episode = new Episode(new PythonInterface());
        episode.game.load(task, variation, simplifications, false);
        episode.game.taskMaker_$eq(null); // 10 MB, which only loading needs
        current = episode;
        return episode;
    }

    /** The simulator's own solution of a task. */
    public static List<String> gold(String task, int variation, String simplifications) throws Exception {
        leave();
        PythonInterface game = new PythonInterface();
        game.load(task, variation, simplifications, true);
        return new ArrayList<>(game.getGoldActionSequence());
    }

    /** The sentence of the task, and the score before the first step. */
    public String begun() {
        return game.getTaskDescription() + SEPARATOR + game.getScore();
    }

    /** Execute an action: the observation, the score, and whether the task is over. */
    public String step(String action) throws Exception {
        enter();
        String observed = QUESTIONS.contains(action.trim().toLowerCase()) ? game.step(action) : act(action);
        return observed + SEPARATOR + game.getScore() + SEPARATOR + game.getCompleted();
    }

    private String act(String action) {
        Tuple3<String, Object, Object> answer = agent().step(action);
        game.score_$eq((Double) answer._2());
        game.isComplete_$eq((Boolean) answer._3());
        return answer._1().isEmpty() ? UNKNOWN : answer._1();
    }

    /** An independent episode in the same state. */
    public Episode fork() throws Exception {
        if (current == this) {
            save();
        }
        Episode episode = new Episode((PythonInterface) new Copier().copy(game));
        episode.ids = ids;
        episode.seed = seed;
        episode.gaussian = gaussian;
        episode.hasGaussian = hasGaussian;
        episode.simplified = simplified;
        return episode;
    }

    private AgentInterface agent() {
        return (AgentInterface) game.agentInterface().get();
    }

    private void enter() throws Exception {
        if (current == this) {
            return;
        }
        leave();
        COUNT.setLong(IDS, ids);
        SEED.set(seed);
        GAUSSIAN.setDouble(RANDOM, gaussian);
        HAS_GAUSSIAN.setBoolean(RANDOM, hasGaussian);
        SIMPLIFICATIONS.clear();
        for (Object name : simplified) {
            SIMPLIFICATIONS.$plus$eq(name);
        }
        current = this;
    }

    private static void leave() throws Exception {
        if (current != null) {
            current.save();
            current = null;
        }
    }

    private void save() throws Exception {
        ids = COUNT.getLong(IDS);
        seed = SEED.get();
        gaussian = GAUSSIAN.getDouble(RANDOM);
        hasGaussian = HAS_GAUSSIAN.getBoolean(RANDOM);
        simplified = new ArrayList<>();
        for (int i = 0; i < SIMPLIFICATIONS.size(); i++) {
            simplified.add(SIMPLIFICATIONS.apply(i));
        }
    }

    @SuppressWarnings("unchecked")
    private static ArrayBuffer<Object> simplifications() {
        Object processor = module("main.scala.scienceworld.runtime.SimplifierProcessor$");
        return (ArrayBuffer<Object>) get(field(processor.getClass(), "simplifications"), processor);
    }

    private static Object module(String name) {
        try {
            return get(field(Class.forName(name), "MODULE$"), null);
        } catch (ClassNotFoundException error) {
            throw new IllegalStateException(error);
        }
    }

    private static Field field(Class<?> owner, String name) {
        try {
            Field field = owner.getDeclaredField(name);
            field.setAccessible(true);
            return field;
        } catch (NoSuchFieldException error) {
            throw new IllegalStateException(error);
        }
    }

    private static Object get(Field field, Object owner) {
        try {
            return field.get(owner);
        } catch (IllegalAccessException error) {
            throw new IllegalStateException(error);
        }
    }
}
