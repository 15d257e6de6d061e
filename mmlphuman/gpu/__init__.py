"""Everything that runs on NVIDIA GPUs alone, in Triton and CUDA graphs; entered through backend.choose_backend.

The files in the order of the data path, each with its plain twin, which tests/gpu compares it with:

    interpolation    avatar.neighbours.Interpolation, and its transpose
    tables           what the kernels read of an Avatar besides parameters
    bank             avatar.mlp_bank.MLPBank
    control_points   Avatar.offset_control_points
    skeleton         Avatar.skinning_transforms
    posing           Avatar.canonical_gaussians, Avatar.pose_gaussians
    scene_light      avatar.light.SceneLight
    fused_avatar     Avatar.forward: these stages in a row; recorded, for training
    view_colors      render.shading
    tile_pairs       render.gsplat_rasterizer.gsplat_pairs
    frame            TrainedAvatar.pose and rasterize, recorded, for drawing
    fast_lpips       measures.lpips.LPIPS
    pose_rows        autograd's gradients, in short
    kernel_adam      torch.optim.Adam and AdamW
    backend          backend.Backend: who gets which of these
"""
