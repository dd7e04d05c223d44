package sand;

import java.lang.reflect.Array;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.Set;
import scienceworld.struct.EnvObject;

/**
 * Copies a graph of objects, each object once.
 *
 * Values, modules, functions and random generators are shared. The JVM runs with -XX:hashCode=2, which gives every object
 * the same identity hash. Copied hash tables therefore stay valid, but an IdentityHashMap would degrade to a list. So,
 * during the copy, each original stores its number in its first int field; objects without such a field are looked up
 * in a table that hashes them by their content.
 */
final class Copier {
    private static final Set<Class<?>> VALUES = Set.of(
        String.class, Class.class, Long.class, Integer.class, Double.class, Float.class, Boolean.class,
        Character.class, Byte.class, Short.class, java.util.regex.Pattern.class, java.math.BigInteger.class);

    /** How many references of an object its hash includes. */
    private static final int GLANCES = 2;

    /** Not a HashMap: classes have the same identity hash too. */
    private static final ClassValue<Shape> SHAPES = new ClassValue<>() {
        @Override
        protected Shape computeValue(Class<?> type) {
            return new Shape(type);
        }
    };
    private static final Constructor<?> OBJECT = constructor();

    private final ArrayDeque<Object> originals = new ArrayDeque<>();
    private final ArrayDeque<Object> copies = new ArrayDeque<>();
    private final List<Object> numbered = new ArrayList<>();
    private final List<Object> numberedCopies = new ArrayList<>();
    private final List<Integer> overwritten = new ArrayList<>();
    private Object[] keys = new Object[1 << 14];
    private Object[] values = new Object[1 << 14];
    private int size;

    /** How to copy objects of a class. */
    private static final class Shape {
        boolean shared;
        boolean owner;
        boolean value;
        Field number;
        List<Field> references = new ArrayList<>();
        List<Field> primitives = new ArrayList<>();
        Constructor<?> maker;

        Shape(Class<?> type) {
            shared = isShared(type);
            if (shared || type.isArray()) {
                return;
            }
            fields(type, this);
            owner = type.getName().startsWith("scala.collection.");
            value = type == scala.Some.class; // immutable, and its identity does not matter
            number = first(primitives);
            shared = references.isEmpty() && primitives.stream().allMatch(Copier::isFinal);
            // This constructor runs no code of the class: we set all fields ourselves.
            maker = sun.reflect.ReflectionFactory.getReflectionFactory().newConstructorForSerialization(type, OBJECT);
        }
    }

    /** Copy an object and everything that it refers to. */
    Object copy(Object root) throws ReflectiveOperationException {
        try {
            Object result = reach(root);
            while (!originals.isEmpty()) {
                fill(originals.pop(), copies.pop());
            }
            return result;
        } finally {
            for (int i = 0; i < numbered.size(); i++) {
                Object original = numbered.get(i);
                shape(original.getClass()).number.setInt(original, overwritten.get(i));
            }
        }
    }

    private void fill(Object original, Object copy) throws ReflectiveOperationException {
        if (original instanceof Object[]) {
            Object[] from = (Object[]) original;
            Object[] to = (Object[]) copy;
            for (int i = 0; i < from.length; i++) {
                to[i] = reach(from[i]);
            }
            return;
        }
        Shape shape = shape(original.getClass());
        for (Field field : shape.references) {
            Object held = field.get(original);
            // A collection owns its array: nothing else refers to it.
            boolean own = shape.owner && held instanceof Object[];
            field.set(copy, own ? made(held, shape(held.getClass())) : reach(held));
        }
    }

    /** The copy of an object. Its references may still be unset: they are copied later. */
    private Object reach(Object original) throws ReflectiveOperationException {
        if (original == null) {
            return null;
        }
        Shape shape = shape(original.getClass());
        if (shape.shared) {
            return original;
        }
        Object known = shape.value ? null : known(original, shape);
        if (known != null) {
            return known;
        }
        Object copy = made(original, shape);
        if (!shape.value) {
            remember(original, copy, shape);
        }
        return copy;
    }

    private Object made(Object original, Shape shape) throws ReflectiveOperationException {
        boolean array = original.getClass().isArray();
        Object copy = array ? array(original) : instance(original, shape);
        if (array ? original instanceof Object[] : !shape.references.isEmpty()) {
            originals.push(original);
            copies.push(copy);
        }
        return copy;
    }

    private Object known(Object original, Shape shape) throws ReflectiveOperationException {
        if (shape.number == null) {
            return get(original);
        }
        int number = shape.number.getInt(original);
        boolean seen = 0 <= number && number < numbered.size() && numbered.get(number) == original;
        return seen ? numberedCopies.get(number) : null;
    }

    private void remember(Object original, Object copy, Shape shape) throws ReflectiveOperationException {
        if (shape.number == null) {
            put(original, copy);
            return;
        }
        overwritten.add(shape.number.getInt(original));
        shape.number.setInt(original, numbered.size());
        numbered.add(original);
        numberedCopies.add(copy);
    }

    private static Object array(Object original) {
        int length = Array.getLength(original);
        Object copy = Array.newInstance(original.getClass().getComponentType(), length);
        if (!(original instanceof Object[])) {
            System.arraycopy(original, 0, copy, 0, length);
        }
        return copy;
    }

    private static Object instance(Object original, Shape shape) throws ReflectiveOperationException {
        Object copy = shape.maker.newInstance();
        for (Field field : shape.primitives) {
            assign(field, original, copy);
        }
        return copy;
    }

    /** Copy a primitive field, without boxing for the common types. */
    private static void assign(Field field, Object from, Object to) throws IllegalAccessException {
        Class<?> type = field.getType();
        if (type == int.class) {
            field.setInt(to, field.getInt(from));
        } else if (type == boolean.class) {
            field.setBoolean(to, field.getBoolean(from));
        } else if (type == double.class) {
            field.setDouble(to, field.getDouble(from));
        } else if (type == long.class) {
            field.setLong(to, field.getLong(from));
        } else {
            field.set(to, field.get(from));
        }
    }

    private static Shape shape(Class<?> type) {
        return SHAPES.get(type);
    }

    private static void fields(Class<?> type, Shape shape) {
        for (Class<?> owner = type; owner != Object.class; owner = owner.getSuperclass()) {
            for (Field field : owner.getDeclaredFields()) {
                if (!Modifier.isStatic(field.getModifiers())) {
                    field.setAccessible(true);
                    (field.getType().isPrimitive() ? shape.primitives : shape.references).add(field);
                }
            }
        }
    }

    private static Field first(List<Field> primitives) {
        return primitives.stream().filter(field -> field.getType() == int.class).findFirst().orElse(null);
    }

    private static boolean isFinal(Field field) {
        return Modifier.isFinal(field.getModifiers());
    }

    private static boolean isShared(Class<?> type) {
        return VALUES.contains(type) || type.isEnum() || type.isHidden() || type.isSynthetic() || isModule(type)
            || ClassLoader.class.isAssignableFrom(type) || Thread.class.isAssignableFrom(type)
            || Random.class.isAssignableFrom(type);
    }

    /** Scala's singleton objects. */
    private static boolean isModule(Class<?> type) {
        try {
            return type.getName().endsWith("$") && type.getDeclaredField("MODULE$") != null;
        } catch (NoSuchFieldException none) {
            return false;
        }
    }

    private static Constructor<?> constructor() {
        try {
            return Object.class.getDeclaredConstructor();
        } catch (NoSuchMethodException never) {
            throw new AssertionError(never);
        }
    }

    private Object get(Object key) {
        for (int i = slot(key, keys.length); keys[i] != null; i = (i + 1) & (keys.length - 1)) {
            if (keys[i] == key) {
                return values[i];
            }
        }
        return null;
    }

    private void put(Object key, Object value) {
        if (2 * size >= keys.length) {
            grow();
        }
        int i = slot(key, keys.length);
        while (keys[i] != null) {
            i = (i + 1) & (keys.length - 1);
        }
        keys[i] = key;
        values[i] = value;
        size++;
    }

    private void grow() {
        Object[] oldKeys = keys;
        Object[] oldValues = values;
        keys = new Object[2 * oldKeys.length];
        values = new Object[2 * oldKeys.length];
        size = 0;
        for (int i = 0; i < oldKeys.length; i++) {
            if (oldKeys[i] != null) {
                put(oldKeys[i], oldValues[i]);
            }
        }
    }

    private static int slot(Object object, int length) {
        int hash = 31 * object.getClass().getName().hashCode();
        if (object instanceof Object[]) {
            Object[] array = (Object[]) object;
            hash += array.length;
            for (int i = 0, seen = 0; i < array.length && seen < GLANCES; i++) {
                if (array[i] != null) {
                    seen++;
                    hash = 31 * hash + i + glance(array[i]);
                }
            }
        } else {
            hash += glance(object);
            List<Field> references = shape(object.getClass()).references;
            for (int i = 0; i < references.size() && i < GLANCES; i++) {
                hash = 31 * hash + glance(value(references.get(i), object));
            }
        }
        hash *= 0x9E3779B9;
        return (hash ^ (hash >>> 15)) & (length - 1);
    }

    /** A cheap hash that distinguishes many objects. It is stable while the simulator does not run. */
    private static int glance(Object object) {
        if (object == null) {
            return 0;
        }
        if (object instanceof EnvObject) {
            return Long.hashCode(((EnvObject) object).uuid());
        }
        return object instanceof String ? object.hashCode() : object.getClass().getName().hashCode();
    }

    private static Object value(Field field, Object object) {
        try {
            return field.get(object);
        } catch (IllegalAccessException never) {
            throw new AssertionError(never);
        }
    }
}
