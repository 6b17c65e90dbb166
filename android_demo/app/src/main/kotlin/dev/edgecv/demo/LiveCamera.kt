package dev.edgecv.demo

import android.Manifest
import android.content.Context
import android.content.pm.PackageManager
import android.graphics.SurfaceTexture
import android.hardware.display.DisplayManager
import android.os.Handler
import android.os.Looper
import android.view.Surface
import android.view.TextureView

/** The camera on the main screen: its permission, its preview and its frames, and the turns of the device. */
class LiveCamera(private val activity: MainActivity, private val workspace: Workspace) :
    TextureView.SurfaceTextureListener, DisplayManager.DisplayListener {
    private val texture = activity.findViewById<TextureView>(R.id.preview)!!
    private val displays = activity.getSystemService(Context.DISPLAY_SERVICE) as DisplayManager
    private val main = Handler(Looper.getMainLooper())
    private val frames = Frames()
    private val camera = Camera(
        activity,
        onFrame = { image, degrees ->
            if (workspace.session.isFree) {
                val start = System.nanoTime()
                val frame = frames.copy(image, degrees)
                workspace.session.offer(System.nanoTime() - start) { frame }
            }
        },
        onFailure = { reason -> main.post { workspace.showProblem(activity.getString(R.string.camera_failed, reason)) } },
    )

    init {
        texture.surfaceTextureListener = this
    }

    fun resume() {
        // An activity is not told of a half turn: its size and orientation stay the same.
        displays.registerDisplayListener(this, main)
        if (workspace.state.photo == null) start()
    }

    fun pause() {
        displays.unregisterDisplayListener(this)
        camera.stop()
    }

    /** Returns from a photo to the camera. */
    fun use() {
        workspace.change { copy(photo = null) }
        workspace.permissionRequested = false
        displays.registerDisplayListener(this, main)
        start()
    }

    fun onPermission(request: Int, results: IntArray) {
        if (request != PERMISSION) return
        if (results.firstOrNull() == PackageManager.PERMISSION_GRANTED) start()
        else workspace.showProblem(activity.getString(R.string.camera_refused))
    }

    private fun start() {
        if (!camera.exists) return workspace.showProblem(activity.getString(R.string.camera_missing))
        if (!hasPermission()) {
            if (workspace.permissionRequested) return workspace.showProblem(activity.getString(R.string.camera_refused))
            workspace.permissionRequested = true
            return activity.requestPermissions(arrayOf(Manifest.permission.CAMERA), PERMISSION)
        }
        workspace.showProblem(null)
        val surface = texture.surfaceTexture ?: return // its listener calls this again
        camera.displayDegrees = displayDegrees()
        camera.start(surface, FRAME_SIDE, PREVIEW_SIDE)
        transform()
    }

    private fun transform() {
        if (texture.width > 0) texture.setTransform(camera.previewTransform(texture.width, texture.height))
    }

    private fun hasPermission() = activity.checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED

    @Suppress("DEPRECATION") // its replacement needs Android 11
    private fun displayDegrees() = when (activity.windowManager.defaultDisplay.rotation) {
        Surface.ROTATION_90 -> 90
        Surface.ROTATION_180 -> 180
        Surface.ROTATION_270 -> 270
        else -> 0
    }

    override fun onDisplayChanged(display: Int) {
        camera.displayDegrees = displayDegrees()
        transform()
    }

    override fun onDisplayAdded(display: Int) = Unit

    override fun onDisplayRemoved(display: Int) = Unit

    override fun onSurfaceTextureAvailable(surface: SurfaceTexture, width: Int, height: Int) {
        if (workspace.state.photo == null && hasPermission()) start()
    }

    override fun onSurfaceTextureSizeChanged(surface: SurfaceTexture, width: Int, height: Int) = transform()

    override fun onSurfaceTextureDestroyed(surface: SurfaceTexture): Boolean {
        camera.stop()
        return true
    }

    override fun onSurfaceTextureUpdated(surface: SurfaceTexture) = Unit

    private companion object {
        const val PERMISSION = 1
        const val FRAME_SIDE = 480
        const val PREVIEW_SIDE = 1080
    }
}
