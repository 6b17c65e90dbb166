package dev.edgecv.core

import kotlinx.serialization.json.JsonObject
import java.nio.ByteBuffer
import java.util.concurrent.Executors
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicBoolean

/** A model that can be opened: in the app's assets, or a file of the user's. */
interface ModelSource {
    /** The file's name, with its ending. */
    val file: String

    /** The file's bytes in a direct buffer. */
    fun content(): ByteBuffer

    /** The text of the `.json` beside it; null when there is none. */
    fun sidecar(): String?
}

/** What is to be told to the user, as the app's own words. */
enum class Notice { OPENING, NO_MODEL, MEASURING, MEASURED }

/**
 * All that the screen shows; a new value for every change.
 *
 * @property artifact the open model; null where none is.
 * @property settings what was asked for.
 * @property runtime what really runs, such as "tensorflow-lite 2.16.1 XNNPACK".
 * @property fallback why something else runs than was asked for; null where it does not.
 * @property answers of the last photo, likeliest first.
 * @property error why the last step failed, one sentence; null where it did not.
 * @property measurement of the last benchmark.
 */
data class State(
    val settings: Settings,
    val file: String? = null,
    val artifact: Artifact? = null,
    val runtime: String? = null,
    val fallback: String? = null,
    val answers: List<Answer> = emptyList(),
    val timings: Timings = Timings(),
    val notice: Notice? = Notice.NO_MODEL,
    val error: String? = null,
    val measurement: JsonObject? = null,
)

/**
 * The model that is open and the one thread that owns it. Every call returns at once; the state is published from that
 * thread.
 *
 * @param publish given each new state.
 */
class Session(private val runtime: Runtime, settings: Settings, private val publish: (State) -> Unit) : AutoCloseable {
    private val executor = Executors.newSingleThreadExecutor { Thread(it, "inference") }
    private val busy = AtomicBoolean()
    private var source: ModelSource? = null
    private var content: ByteBuffer? = null // the runtime reads the model from it
    private var classifier: Classifier? = null

    @Volatile
    var state = State(settings)
        private set

    /** Whether [offer] would take a photo now. */
    val isFree: Boolean get() = !busy.get()

    /** Opens a model in the place of the one that is open. */
    fun open(source: ModelSource) = submit { open(source, state.settings, null) }

    /** Opens the same model with other settings. */
    fun use(settings: Settings) = submit {
        val same = source
        if (same == null) show(state.copy(settings = settings)) else open(same, settings, null)
    }

    /** Classifies a photo, after all that was asked for before; what [photo] throws as [InputError] is shown. */
    fun classify(photo: () -> Photo) = submit { run(photo) }

    /**
     * Classifies a photo unless another one is being classified: of a camera's frames only the newest count.
     *
     * @param photo makes the photo, on the session's thread.
     * @return whether the photo was taken.
     */
    fun offer(photo: () -> Photo): Boolean {
        if (!busy.compareAndSet(false, true)) return false
        submit {
            try {
                run(photo)
            } finally {
                busy.set(false)
            }
        }
        return true
    }

    /** Measures the open model alone, and opens it again. */
    fun measure(benchmark: Benchmark, request: BenchmarkRequest, keep: (JsonObject) -> Unit) = submit {
        val measured = source ?: throw InputError("There is no model to measure.")
        val asked = state.settings
        show(state.copy(notice = Notice.MEASURING, error = null))
        closeModel()
        val result = try {
            benchmark.measure(measured.content(), null, request)
        } catch (error: InputError) {
            open(measured, asked, null)
            throw error
        }
        keep(result)
        open(measured, asked, null)
        show(state.copy(notice = Notice.MEASURED, measurement = result))
    }

    /** Waits until all that was asked for is done. */
    fun await() {
        executor.submit {}.get()
    }

    override fun close() {
        executor.execute { closeModel() }
        executor.shutdown()
        executor.awaitTermination(10, TimeUnit.SECONDS)
    }

    private fun submit(work: () -> Unit) {
        executor.execute {
            try {
                work()
            } catch (error: InputError) {
                show(state.copy(notice = null, error = error.reason()))
            } catch (error: OutOfMemoryError) {
                show(state.copy(notice = null, error = "The device has too little memory for this."))
            }
        }
    }

    private fun open(source: ModelSource, settings: Settings, failed: DelegateError?) {
        show(State(settings, file = source.file, notice = Notice.OPENING))
        closeModel()
        this.source = null
        val content = source.content()
        var delegate: Delegate? = if (failed == null) settings.delegate else settings.delegate.fallback
        var reason = failed
        while (delegate != null) {
            try {
                val opened = Classifier.open(source.file, content, source.sidecar(), runtime, settings.copy(delegate = delegate))
                this.source = source
                this.content = content
                classifier = opened
                show(State(settings, source.file, opened.artifact, opened.runtime, reason?.reason(), notice = null))
                return
            } catch (error: DelegateError) {
                if (reason == null) reason = error
                delegate = delegate.fallback
            }
        }
        throw reason ?: InputError("${source.file} cannot be opened.")
    }

    private fun run(photo: () -> Photo) {
        val open = classifier ?: return
        val (answers, timing) = try {
            open.classify(photo = photo)
        } catch (error: DelegateError) {
            val same = source ?: throw error
            if (state.fallback != null || state.settings.delegate.fallback == null) throw error
            open(same, state.settings, error)
            return
        }
        show(state.copy(answers = answers, timings = state.timings + timing, notice = null, error = null))
    }

    private fun closeModel() {
        classifier?.close()
        classifier = null
        content = null
    }

    private fun show(new: State) {
        state = new
        publish(new)
    }
}
